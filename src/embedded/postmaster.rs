//! `postmaster.pid`, in which a running server describes itself, and the end of a server that outlived its owner.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::error::EmbeddedError;
use super::files;

/// Index of the status line (`LOCK_FILE_LINE_PM_STATUS`).
const STATUS_LINE: usize = 7;

/// How long a fast shutdown may take.
const FAST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an immediate shutdown may take.
const IMMEDIATE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a server that stops is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The file's content. Its lines are: process id, data directory, start time, port, socket directory, listen address,
/// shared memory, status (`src/include/utils/pidfile.h` in PostgreSQL).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile(String);

impl PidFile {
    /// The pid file of the data directory `data`, if there is one.
    pub fn read(data: &Path) -> Option<Self> {
        files::read(&data.join("postmaster.pid")).ok().map(Self)
    }

    /// Whether the server accepts connections.
    pub fn is_ready(&self) -> bool {
        self.0.lines().nth(STATUS_LINE).map(str::trim) == Some("ready")
    }

    fn process(&self) -> Option<Pid> {
        let id = self.0.lines().next()?.trim().parse::<i32>().ok()?;
        (id > 0).then(|| Pid::from_raw(id))
    }
}

/// Stops a server that still runs on `data` although the process that owned it has ended: the script that supervises it
/// is either about to stop it or was killed too. The caller holds the directory's lock. A process of another user than
/// `owner` is no server: the file is that user's, who may name any process in it.
pub(super) fn stop_leftover(data: &Path, owner: Uid) -> Result<(), EmbeddedError> {
    let Some(process) = PidFile::read(data).and_then(|file| file.process()) else {
        return Ok(());
    };
    // Fast shutdown, which checkpoints; then immediate shutdown ("Shutting Down the Server" in the manual).
    for (signal, timeout) in [
        (Signal::SIGINT, FAST_TIMEOUT),
        (Signal::SIGQUIT, IMMEDIATE_TIMEOUT),
    ] {
        let deadline = Instant::now() + timeout;
        if !is_server_of(process, data, owner) {
            return Ok(());
        }
        // An error means that the process has just ended, which the loop notices.
        let _ = kill(process, signal);
        while Instant::now() < deadline {
            if !is_server_of(process, data, owner) {
                return Ok(());
            }
            sleep(POLL_INTERVAL);
        }
    }
    Err(EmbeddedError::Leftover {
        directory: data.to_owned(),
        process: process.as_raw(),
    })
}

/// Whether `process` is a server that runs on `data`. After a crash its number may belong to any other program. A
/// server has its data directory as its working directory, which proc(5) shows; without `/proc`, any process with the
/// number counts.
fn is_server_of(process: Pid, data: &Path, owner: Uid) -> bool {
    let proc = Path::new("/proc");
    if !proc.join("self").exists() {
        return kill(process, None).is_ok();
    }
    let process = proc.join(process.to_string());
    let is_owners = fs::metadata(&process).is_ok_and(|process| process.uid() == owner.as_raw());
    match (fs::read_link(process.join("cwd")), fs::canonicalize(data)) {
        (Ok(working_directory), Ok(data)) => is_owners && working_directory == data,
        _ => false,
    }
}
