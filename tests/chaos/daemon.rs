//! A daemon of a schedule: the real binary, built with failpoints.

use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where daemons find models and libraries, and where they write down what they do.
#[derive(Clone, Debug)]
pub struct Home {
    pub data_path: PathBuf,
    pub log: PathBuf,
    /// The jobs database.
    pub uri: String,
    /// All jobs share one slot.
    pub shares_slot: bool,
}

/// What sessions of the daemon with this number call themselves, where there are several. The first one keeps the names that
/// it has by itself.
fn name(number: usize) -> String {
    format!("lantern-cli-{}", number + 1)
}

/// The number of the daemon whose sessions call themselves so.
pub fn number(name: &str) -> Option<usize> {
    let place: usize = name.strip_prefix("lantern-cli-")?.parse().ok()?;
    place.checked_sub(1)
}

pub struct Daemon {
    process: Child,
}

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As asked, or because it could not start; a service manager starts it again.
    Ordinary,
    /// By a bug: a panic, or a signal that nobody has sent.
    Crash(ExitStatus),
}

impl Home {
    /// Runs a command of the product for the jobs of this home.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_lantern-cli"))
            .args(arguments)
            .args(["--uri", &self.uri])
            .env("LANTERN_DATA_PATH", &self.data_path)
            .output()
            .await
            .expect("lantern-cli runs")
    }
}

impl Daemon {
    /// Starts the daemon with this number; `failpoints` are those of `src/failpoint.rs`.
    pub fn start(home: &Home, number: usize, failpoints: &str) -> Self {
        let log = append(&home.log);
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern-cli"));
        command
            .args(["start-daemon", "--threads", "1", "--slots"])
            .arg(if home.shares_slot { "database" } else { "job" })
            .env("LANTERN_URI", &home.uri)
            .env("LANTERN_DATA_PATH", &home.data_path)
            .env("FAILPOINTS", failpoints)
            .envs((number > 0).then(|| ("PGAPPNAME", name(number))))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle"))
            .stderr(log);
        // SAFETY: prctl is a plain system call and allocates nothing, as is asked of code between fork and exec.
        unsafe {
            // A harness that is killed leaves no daemon behind.
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let process = command.spawn().expect("lantern-cli starts");
        Self { process }
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<Ending> {
        let status = self.process.try_wait().expect("it is our child")?;
        // A SIGTERM may come before the daemon listens to it.
        let ours = [Signal::SIGKILL, Signal::SIGTERM].map(|signal| Some(signal as i32));
        Some(match status.code() {
            Some(0 | 1) => Ending::Ordinary,
            None if ours.contains(&status.signal()) => Ending::Ordinary,
            _ => Ending::Crash(status),
        })
    }

    pub fn signal(&self, signal: Signal) {
        // It may have killed itself in a failpoint.
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn append(path: &Path) -> File {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
