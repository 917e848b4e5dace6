//! Keeps the server from outliving its owner.
//!
//! The server is not our own child but that of a small shell script, whose standard input is a pipe that only we hold
//! the other end of. When we close it, or the kernel does so because we were killed, the script stops the server. A
//! parent-death signal would not do: it comes when the *thread* that started the child ends.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};

const SCRIPT: &str = include_str!("supervise.sh");

/// Longer than the script needs in the worst case.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shell script that runs a program of PostgreSQL's for us, and that program.
#[derive(Debug)]
pub(super) struct Supervisor {
    script: Child,
    status_file: PathBuf,
}

/// What becomes of the server's directory when we are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// The server shuts down in good order, and its files stay.
    Keep,
    /// The server ends at once, and its files are removed.
    Remove,
}

impl Supervisor {
    /// Starts `program`. Its output goes to the directory's log.
    pub fn start(
        account: &Account,
        directory: &ServerDirectory,
        afterwards: Afterwards,
        program: &Command,
    ) -> Result<Self, EmbeddedError> {
        let status_file = directory.status_file();
        if status_file.exists() {
            fs::remove_file(&status_file).map_err(failed_to("remove", &status_file))?;
        }
        let shell = Path::new("/bin/sh");
        let mut command = account.command(shell);
        command.arg(directory.write_script(SCRIPT)?);
        match afterwards {
            Afterwards::Keep => command.arg("INT").arg(&status_file).arg(""),
            Afterwards::Remove => command.arg("QUIT").arg(&status_file).arg(directory.root()),
        };
        let log = directory.begin_log()?;
        let script = log
            .try_clone()
            .and_then(|error_log| {
                command
                    .arg(program.get_program())
                    .args(program.get_args())
                    .stdin(Stdio::piped())
                    .stdout(log)
                    .stderr(error_log)
                    // A terminal sends Ctrl-C to its foreground process group: the server is not to hear it.
                    .process_group(0)
                    .spawn()
            })
            .map_err(failed_to("run", shell))?;
        Ok(Self {
            script,
            status_file,
        })
    }

    /// How the program ended, where it has: its exit status, as a shell counts it (128 and more: by a signal).
    pub fn ended(&mut self) -> Option<i32> {
        const SCRIPT_IS_GONE: i32 = 128 + 9;
        let written = fs::read_to_string(&self.status_file).unwrap_or_default();
        // Only a whole line is the whole status.
        if let Some(status) = written.strip_suffix('\n') {
            return Some(status.parse().unwrap_or(SCRIPT_IS_GONE));
        }
        let script = self.script.try_wait().ok().flatten();
        script.map(|_| SCRIPT_IS_GONE)
    }

    /// Stops the program and waits for its end; `false` where it does not end.
    pub fn stop(&mut self) -> bool {
        drop(self.script.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.script.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(2));
        }
        true
    }

    /// Lets go of a program that has ended, and keeps its directory for the next one.
    pub fn dismiss(mut self) {
        if let Some(order) = &mut self.script.stdin {
            // An error means that the script is gone, and then it removes nothing.
            let _ = order.write_all(b"keep\n");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}
