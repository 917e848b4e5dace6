//! What a running server says of itself in `postmaster.pid`: see `src/include/utils/pidfile.h` in PostgreSQL.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::EmbeddedError;

/// One line each: process id, data directory, start time, port, socket directory, address, shared memory, status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile(String);

impl PidFile {
    /// The pid file of `data`, where there is one.
    pub fn read(data: &Path) -> Option<Self> {
        fs::read_to_string(data.join("postmaster.pid"))
            .ok()
            .map(Self)
    }

    /// Whether the server accepts connections.
    pub fn is_ready(&self) -> bool {
        self.0.lines().nth(7).map(str::trim) == Some("ready")
    }

    fn process(&self) -> Option<Pid> {
        let id = self.0.lines().next()?.trim().parse::<i32>().ok()?;
        (id > 0).then(|| Pid::from_raw(id))
    }
}

/// Stops a server that still runs on `data` although the process that it belonged to is gone: its supervisor is either
/// about to stop it or was killed as well. The caller holds the directory's lock.
pub(super) fn stop_leftover(data: &Path) -> Result<(), EmbeddedError> {
    let Some(process) = PidFile::read(data).and_then(|file| file.process()) else {
        return Ok(());
    };
    // Fast shutdown; then, for one that waits for something, immediate shutdown.
    for (signal, patience) in [(Signal::SIGINT, 20), (Signal::SIGQUIT, 10)] {
        let deadline = Instant::now() + Duration::from_secs(patience);
        if !is_server_of(process, data) {
            return Ok(());
        }
        // An error means that it has just ended, which the loop sees.
        let _ = kill(process, signal);
        while Instant::now() < deadline {
            if !is_server_of(process, data) {
                return Ok(());
            }
            sleep(Duration::from_millis(10));
        }
    }
    Err(EmbeddedError::Leftover {
        directory: data.to_owned(),
        process: process.as_raw(),
    })
}

/// Whether `process` is a server that runs on `data`. After a crash the number may belong to any other program; a
/// server has the data directory as its working directory.
fn is_server_of(process: Pid, data: &Path) -> bool {
    let proc = Path::new("/proc");
    if !proc.join("self").exists() {
        return kill(process, None).is_ok();
    }
    let working_directory = fs::read_link(proc.join(process.to_string()).join("cwd"));
    match (working_directory, fs::canonicalize(data)) {
        (Ok(working_directory), Ok(data)) => working_directory == data,
        _ => false,
    }
}
