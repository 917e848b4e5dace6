//! A daemon of a schedule: the real binary, built with failpoints.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Output};

use nix::sys::signal::Signal;
use testkit::{Process, Program};

/// What the daemons of a schedule have in common.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// The program, with a data path that holds the tiny models.
    pub program: Program,
    pub log: PathBuf,
    /// The jobs database.
    pub uri: String,
    /// All jobs share one slot.
    pub shares_slot: bool,
}

/// What the end of a daemon means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As asked, or because it could not start; a service manager starts it again.
    Ordinary,
    /// A bug: a panic, or a signal that the harness did not send.
    Crash(ExitStatus),
}

/// The `application_name` of the daemon with this number, from the second on. The first one keeps the names that it has
/// by default.
fn name(number: usize) -> String {
    format!("lantern-cli-{}", number + 1)
}

/// The number of the daemon with this `application_name`.
pub fn number(name: &str) -> Option<usize> {
    let place: usize = name.strip_prefix("lantern-cli-")?.parse().ok()?;
    place.checked_sub(1)
}

impl DaemonConfig {
    /// Starts the daemon with this number; `failpoints` are those of `src/failpoint.rs`.
    pub fn start(&self, number: usize, failpoints: &str) -> Process {
        let name = (number > 0).then(|| name(number));
        self.start_named(name.as_deref(), failpoints)
    }

    /// Starts a daemon on a clone of the jobs database.
    pub fn start_on_clone(&self, uri: String) -> Process {
        let config = DaemonConfig {
            uri,
            ..self.clone()
        };
        config.start_named(Some("lantern-cli-clone"), "")
    }

    fn start_named(&self, name: Option<&str>, failpoints: &str) -> Process {
        let mut command = self.program.command("start-daemon");
        command
            .args(["--threads", "1", "--log-level", "debug", "--slots"])
            .arg(if self.shares_slot { "database" } else { "job" })
            .env("LANTERN_URI", &self.uri)
            .env("FAILPOINTS", failpoints)
            .envs(name.map(|name| ("PGAPPNAME", name)));
        Process::spawn_with_log(command, &self.log).expect("lantern-cli starts")
    }

    /// Runs a command of the product on the jobs of these daemons.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(&[], arguments).await
    }

    /// As [`run`](Self::run), with these variables in its environment.
    pub async fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        let arguments = [arguments, &["--uri", &self.uri]].concat();
        let set = |program: Program, (name, value): &(&str, &str)| program.with_env(name, value);
        let program = variables.iter().fold(self.program.clone(), set);
        program.run(&arguments).await
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        // A SIGTERM may come before the daemon handles it.
        let ours = [Signal::SIGKILL, Signal::SIGTERM].map(|signal| Some(signal as i32));
        match status.code() {
            Some(0 | 1) => Ending::Ordinary,
            None if ours.contains(&status.signal()) => Ending::Ordinary,
            _ => Ending::Crash(status),
        }
    }
}
