//! Keeps the server from outliving its owner.
//!
//! The server is not our own child but that of a small shell script, whose standard input is a pipe that only we hold
//! the other end of. When we close it, or the kernel does so because we were killed, the script stops the server. A
//! parent-death signal would not do: it comes when the *thread* that started the child ends.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::Account;
use super::error::{EmbeddedError, failed_to};

/// Arguments: the signal that stops the server, a directory to remove after it (or nothing), the server's command.
///
/// Signals to a terminal's processes or to all processes do not concern the script: only its owner's end does.
/// `read` returns when the pipe is closed. A server that is not gone 15 seconds later is shut down immediately, which
/// loses nothing: its next start recovers.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
signal=$1 temporary=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
(
    read -r order <&3
    kill -s "$signal" "$server"
    tenths=0
    while [ "$tenths" -lt 150 ] && kill -s 0 "$server" 2>/dev/null; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
    kill -s QUIT "$server" 2>/dev/null
) &
watch=$!
wait "$server"
status=$?
kill -s KILL "$watch" 2>/dev/null
[ -z "$temporary" ] || rm -rf -- "$temporary"
exit "$status"
"#;

/// Longer than the script needs in the worst case.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shell script that runs the server.
#[derive(Debug)]
pub(super) struct Supervisor {
    script: Child,
}

/// What becomes of the data when the server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards<'a> {
    /// The server shuts down in good order, and its files stay.
    Keep,
    /// The server ends at once, and this directory is removed.
    Remove(&'a Path),
}

impl Supervisor {
    /// Starts `server` and watches over it. The output of both goes to `log`.
    pub fn start(
        account: &Account,
        server: &Command,
        afterwards: Afterwards<'_>,
        log: File,
    ) -> Result<Self, EmbeddedError> {
        let shell = Path::new("/bin/sh");
        let mut command = account.command(shell);
        command.args(["-c", SCRIPT, "lantern-postgres"]);
        match afterwards {
            Afterwards::Keep => command.args(["INT", ""]),
            Afterwards::Remove(directory) => command.arg("QUIT").arg(directory),
        };
        let error_log = log.try_clone().map_err(failed_to("run", shell))?;
        let script = command
            .arg(server.get_program())
            .args(server.get_args())
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(error_log)
            // A terminal sends Ctrl-C to its foreground process group: the server is not to hear it.
            .process_group(0)
            .spawn()
            .map_err(failed_to("run", shell))?;
        Ok(Self { script })
    }

    /// How the server ended, where it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.script.try_wait().ok().flatten()
    }

    /// Stops the server and waits for its end; `false` where it does not end.
    pub fn stop(&mut self) -> bool {
        drop(self.script.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}
