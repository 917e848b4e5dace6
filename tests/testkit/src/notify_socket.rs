//! The socket of a service manager, as systemd makes one for a daemon (sd_notify(3)).

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Instant;

use tempfile::TempDir;

use crate::process::Process;
use crate::program::Program;
use crate::wait::{TIMEOUT, wait_until};

/// Hears what daemons tell their service manager. Nothing listens any more when the value is dropped.
pub struct NotifySocket {
    folder: TempDir,
    socket: UnixDatagram,
    /// Each line that has arrived, and when.
    heard: Vec<(Instant, String)>,
}

impl Default for NotifySocket {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        NotifySocket {
            folder,
            socket,
            heard: Vec::new(),
        }
    }
}

impl NotifySocket {
    /// Where daemons find it (`NOTIFY_SOCKET`).
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    /// Starts a daemon that has this service manager, with a watchdog of that many milliseconds.
    pub fn start_daemon(&self, program: &Program, watchdog: u32, arguments: &[&str]) -> Process {
        let (path, limit) = (self.path(), (u64::from(watchdog) * 1000).to_string());
        let variables = [
            ("NOTIFY_SOCKET", path.to_str().expect("a readable path")),
            ("WATCHDOG_USEC", &limit),
        ];
        program.start_daemon_with_env(&variables, arguments)
    }

    /// How often a line such as `READY=1` has arrived.
    ///
    /// # Panics
    ///
    /// Where the socket cannot be read.
    pub fn count(&mut self, line: &str) -> usize {
        self.listen();
        self.heard.iter().filter(|(_, heard)| heard == line).count()
    }

    /// When the line arrived last.
    pub fn last(&mut self, line: &str) -> Option<Instant> {
        self.listen();
        let heard = self.heard.iter().rev();
        heard
            .clone()
            .find(|(_, heard)| heard == line)
            .map(|(at, _)| *at)
    }

    /// Waits until a line has arrived.
    pub async fn wait_for(&mut self, line: &str) {
        wait_until(line, TIMEOUT, async || match self.count(line) {
            0 => Err(self.heard.clone()),
            _ => Ok(()),
        })
        .await;
    }

    /// Waits until a line has arrived that many more times.
    pub async fn wait_for_more(&mut self, line: &str, times: usize) {
        let before = self.count(line);
        wait_until(line, TIMEOUT, async || {
            let more = self.count(line) - before;
            if more >= times { Ok(()) } else { Err(more) }
        })
        .await;
    }

    fn listen(&mut self) {
        let mut message = [0; 4096];
        loop {
            match self.socket.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]);
                    let lines = text.lines().map(|line| (Instant::now(), line.to_owned()));
                    self.heard.extend(lines);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
