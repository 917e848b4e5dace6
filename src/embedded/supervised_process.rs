//! Runs a program of PostgreSQL so that it never outlives this process.
//!
//! ```text
//!  this process ══ pipe ══▶ /bin/sh supervise.sh ──▶ postgres or initdb
//!                           stops the program when the pipe closes
//! ```
//!
//! The program is not our child but that of a small shell script. The script's standard input is a pipe whose other end
//! only we hold. When we close it, or the kernel closes it because we were killed, the script stops the program.
//! PostgreSQL watches its own parent in the same way (`postmaster_alive_fds` in `src/backend/postmaster/postmaster.c`).
//!
//! A parent-death signal (`PR_SET_PDEATHSIG` in prctl(2)) would not do: it is sent when the *thread* that started the
//! child ends, and only Linux has it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};
use super::files;

const SCRIPT: &str = include_str!("supervise.sh");

/// How long a program may take to stop. The script needs at most about half of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a program that stops is checked.
const STOP_POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A program of PostgreSQL and the shell script that supervises it. Dropping it stops the program.
#[derive(Debug)]
pub(super) struct SupervisedProcess {
    script: Child,
    status_file: PathBuf,
}

/// What happens to the server's directory when the program is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// The server shuts down properly, and its files stay.
    Persistent,
    /// The server stops immediately, and its files are removed.
    Temporary,
}

impl SupervisedProcess {
    /// Starts `program`. Its output goes to the directory's log.
    pub fn start(
        account: &Account,
        directory: &ServerDirectory,
        lifetime: Lifetime,
        program: &Command,
    ) -> Result<Self, EmbeddedError> {
        let status_file = directory.status_file();
        files::remove(&status_file).map_err(failed_to("remove", &status_file))?;
        let shell = Path::new("/bin/sh");
        let mut command = account.command(shell);
        command.arg(directory.write_script(SCRIPT)?);
        // SIGINT is fast shutdown and SIGQUIT immediate shutdown ("Shutting Down the Server" in the manual).
        match lifetime {
            Lifetime::Persistent => command.arg("INT").arg(&status_file).arg(""),
            Lifetime::Temporary => command.arg("QUIT").arg(&status_file).arg(directory.root()),
        };
        command
            .arg(program.get_program())
            .args(program.get_args())
            // A terminal sends Ctrl-C to its foreground process group: the server must not receive it.
            .process_group(0)
            .stdin(Stdio::piped());
        let log = directory.begin_log()?;
        let script = log
            .try_clone()
            .and_then(|error_log| command.stdout(log).stderr(error_log).spawn())
            .map_err(failed_to("run", shell))?;
        Ok(Self {
            script,
            status_file,
        })
    }

    /// The program's exit status, if it has ended, as a shell reports it: 128 plus the number of the signal that ended
    /// it.
    pub fn exit_status(&mut self) -> Option<i32> {
        // 9 is SIGKILL: nothing else ends the script before it has written the status.
        const SCRIPT_WAS_KILLED: i32 = 128 + 9;
        let written = files::read(&self.status_file).unwrap_or_default();
        // The script may be writing at this moment: only a whole line is the whole status.
        if let Some(status) = written.strip_suffix('\n') {
            return Some(status.parse().unwrap_or(SCRIPT_WAS_KILLED));
        }
        let script = self.script.try_wait().ok().flatten();
        script.map(|_| SCRIPT_WAS_KILLED)
    }

    /// Stops the program and waits until it has ended; `false` if it does not end.
    pub fn stop(&mut self) -> bool {
        drop(self.script.stdin.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.script.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(STOP_POLL_INTERVAL);
        }
        true
    }

    /// Releases a program that has ended. Its directory is kept, even a temporary one, for the next program.
    pub fn release(mut self) {
        if let Some(order) = &mut self.script.stdin {
            // An error means that the script has ended, and then it removes nothing.
            let _ = order.write_all(b"keep\n");
        }
    }
}

impl Drop for SupervisedProcess {
    fn drop(&mut self) {
        self.stop();
    }
}
