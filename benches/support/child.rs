//! Processes that end with the benchmark, however that ends.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::process::{self, Resident};

pub struct Child {
    process: std::process::Child,
    log: PathBuf,
}

/// The daemon, to be given its server and what else it needs.
pub fn daemon(uri: &str, data_path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern-cli"));
    command.arg("start-daemon");
    command.env("LANTERN_URI", uri);
    command.env("LANTERN_DATA_PATH", data_path);
    command
}

impl Child {
    /// Starts it; what it says goes into `log`.
    pub fn spawn(mut command: Command, log: PathBuf) -> Child {
        let said = fs::File::create(&log).expect("a file");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        // SAFETY: prctl is a plain system call and allocates nothing, as is asked of code between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let process = command.spawn().expect("it starts");
        Child { process, log }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Path::new(&format!("/proc/{}/exe", self.id())).exists()
    }

    pub fn resident(&self) -> Resident {
        process::resident(self.id())
    }

    /// Its memory at rest, in bytes: the least of some looks. Its peak counts from now on.
    pub async fn resident_at_rest(&self) -> u64 {
        let mut least = u64::MAX;
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            least = least.min(self.resident().now);
        }
        process::reset_peak(self.id());
        least
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
