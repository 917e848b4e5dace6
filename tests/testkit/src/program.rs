//! The `lantern-cli` under test.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::hub::Hub;
use crate::paths::runtime;
use crate::process::Process;

/// A build of `lantern-cli` and the data path that it gets. Cargo tells the path of the build in
/// `CARGO_BIN_EXE_lantern-cli`, but only to integration tests and benchmarks of the package itself, so this crate takes
/// it as a value.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    data_path: PathBuf,
    yields: bool,
    variables: Vec<(String, String)>,
}

/// Variables that change where models are from. A test has none of its machine's.
const OF_THE_HUB: [&str; 7] = [
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_TOKEN_PATH",
    "HUGGINGFACE_HUB_CACHE",
    "HUGGING_FACE_HUB_TOKEN",
];

impl Program {
    /// The program at this path, with what `make setup` has fetched.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            data_path: runtime(),
            yields: true,
            variables: Vec::new(),
        }
    }

    /// The same program with another data path.
    pub fn with_data_path(self, data_path: impl Into<PathBuf>) -> Self {
        Self {
            data_path: data_path.into(),
            ..self
        }
    }

    /// The same program, whose inference does not yield unless told to: tests that run at the same time would wait for each
    /// other.
    pub fn without_yielding(self) -> Self {
        Self {
            yields: false,
            ..self
        }
    }

    /// The same program with one more environment variable.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same program, which downloads models from this hub.
    pub fn connected_to(self, hub: &Hub) -> Self {
        self.with_env("LANTERN_OFFLINE", "0")
            .with_env("HF_ENDPOINT", &hub.endpoint())
            .with_env("NO_PROXY", "127.0.0.1")
    }

    /// A subcommand, to be given its arguments. It is offline, and sees no model and no configuration of this machine, unless a variable
    /// says otherwise.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.path);
        command
            .arg(subcommand)
            .env("LANTERN_DATA_PATH", &self.data_path)
            .env("LANTERN_OFFLINE", "1")
            .env("LANTERN_CONFIG", "")
            .env("XDG_CACHE_HOME", self.data_path.join("cache"))
            .env_remove("HF_HOME");
        for name in OF_THE_HUB {
            command.env_remove(name);
        }
        if !self.yields {
            command.env("LANTERN_YIELD", "off");
        }
        let variables = self.variables.iter();
        command.envs(variables.map(|(name, value)| (name, value)));
        command
    }

    /// Runs a subcommand with its arguments to its end.
    ///
    /// # Panics
    ///
    /// Where the program cannot be started.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let (subcommand, rest) = arguments.split_first().expect("a subcommand");
        let mut command = self.command(subcommand);
        command.args(rest);
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await;
        output.expect("lantern-cli starts")
    }

    /// What a subcommand prints to its standard output.
    ///
    /// # Panics
    ///
    /// Where it fails, with its message.
    pub async fn stdout_of(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {errors}");
        String::from_utf8(output.stdout).expect("it prints UTF-8")
    }

    /// Starts a daemon with these arguments.
    pub fn start_daemon(&self, arguments: &[&str]) -> Process {
        self.start_daemon_with_env(&[], arguments)
    }

    /// Starts a daemon with these arguments and environment variables.
    pub fn start_daemon_with_env(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Process {
        let mut command = self.command("start-daemon");
        command.args(arguments).envs(variables.iter().copied());
        Process::spawn(command)
    }
}
