//! A server that is stopped and started again in the course of a test, under its clients' feet.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lantern::embedded::{EmbeddedError, Installation, PrivatePostgres, ServerOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::server::{client_program, owned_settings};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How a server is stopped (PostgreSQL manual, "Shutting Down the Server").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In good order; walsenders send all they have first.
    Fast,
    /// At once, as a crash does.
    Immediate,
}

/// A server in a directory of its own, which keeps its data, its password and its port over restarts.
///
/// `fsync` is off: what a server has written survives its own crash without it, and no test crashes the machine.
pub struct RestartableServer {
    // Dropped in this order.
    running: Option<PrivatePostgres>,
    installation: Installation,
    settings: Vec<(String, String)>,
    port: u16,
    password: String,
    directory: TempDir,
}

impl RestartableServer {
    /// Starts a server with these settings. Blocks until it answers.
    ///
    /// # Panics
    ///
    /// Where the server does not start.
    pub fn start(installation: Installation, settings: &[(&str, &str)]) -> Self {
        let directory = open_directory();
        let settings = owned_settings(settings);
        let running = launch(&installation, directory.path(), &settings, None);
        let running = running.unwrap_or_else(|error| panic!("no server to test with: {error}"));
        Self {
            port: running.port(),
            password: running.password().to_owned(),
            running: Some(running),
            installation,
            settings,
            directory,
        }
    }

    /// Stops the server and blocks until it has ended. Does nothing where it is stopped already.
    ///
    /// # Panics
    ///
    /// Where the server does not stop.
    pub fn stop(&mut self, how: Stop) {
        let Some(running) = self.running.take() else {
            return;
        };
        if how == Stop::Immediate {
            let data = running.data_directory().join("data");
            let postmaster = postmaster(&data).expect("a running server has a pid file");
            kill(postmaster, Signal::SIGQUIT).expect("the server runs");
            while kill(postmaster, None).is_ok() {
                thread::sleep(Duration::from_millis(2));
            }
        }
        running.stop().expect("the server stops");
    }

    /// Starts the stopped server again, on the port that it had. Blocks until it answers.
    ///
    /// # Panics
    ///
    /// Where the server has not started within half a minute.
    pub fn start_again(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.running.is_none() {
            let port = Some(self.port);
            match launch(
                &self.installation,
                self.directory.path(),
                &self.settings,
                port,
            ) {
                Ok(server) => self.running = Some(server),
                // Sockets of the old server's connections may hold the port for a moment.
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                Err(error) => panic!("the server does not start again: {error}"),
            }
        }
    }

    /// A physical copy of the running server, with a base backup's contents, on a port of its own. Blocks until it
    /// answers.
    ///
    /// # Panics
    ///
    /// Where it cannot be copied or the copy does not start.
    pub fn copy(&self) -> Self {
        self.try_copy().expect("pg_basebackup succeeds")
    }

    /// As [`copy`](Self::copy); `None` where `pg_basebackup` fails, as it may while the server is disturbed.
    ///
    /// # Panics
    ///
    /// Where the copy does not start.
    pub fn try_copy(&self) -> Option<Self> {
        let original = self.running.as_ref().expect("it runs");
        let directory = open_directory();
        let owner = fs::metadata(original.data_directory().join("data")).expect("its data");
        let own = |path: &Path| {
            chown(path, Some(owner.uid()), Some(owner.gid())).expect("the server's account");
        };
        let server = directory.path().join("server");
        DirBuilder::new().mode(0o700).create(&server).expect("ours");
        own(&server);
        let password = server.join("password");
        fs::copy(original.data_directory().join("password"), &password).expect("a password");
        own(&password);
        let status = Command::new(client_program(original, "pg_basebackup"))
            .args([
                "--checkpoint=fast",
                "--no-sync",
                "--dbname",
                &self.uri("postgres"),
                "--pgdata",
            ])
            .arg(server.join("data"))
            .current_dir("/")
            .uid(owner.uid())
            .gid(owner.gid())
            .status();
        if !status.expect("pg_basebackup starts").success() {
            return None;
        }
        let running = launch(&self.installation, directory.path(), &self.settings, None);
        let running = running.unwrap_or_else(|error| panic!("the copy does not start: {error}"));
        Some(Self {
            port: running.port(),
            password: self.password.clone(),
            running: Some(running),
            installation: self.installation.clone(),
            settings: self.settings.clone(),
            directory,
        })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's connection string.
    pub fn uri(&self, database: &str) -> String {
        self.uri_through(self.port, database)
    }

    /// The superuser's connection string by way of another port, that of a proxy.
    pub fn uri_through(&self, port: u16, database: &str) -> String {
        let password = &self.password;
        format!("postgresql://postgres:{password}@127.0.0.1:{port}/{database}")
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("server/server.log")
    }
}

fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // The account of the server has to enter it.
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(directory.path(), open).expect("it is ours");
    directory
}

fn launch(
    installation: &Installation,
    directory: &Path,
    settings: &[(String, String)],
    port: Option<u16>,
) -> Result<PrivatePostgres, EmbeddedError> {
    let options = ServerOptions {
        port,
        settings: settings.to_vec(),
        durable: false,
        ..ServerOptions::new(directory.join("server"))
    };
    PrivatePostgres::start(installation, options)
}

/// The process id is the first line of `postmaster.pid` (src/include/utils/pidfile.h).
fn postmaster(data: &Path) -> io::Result<Pid> {
    let file = fs::read_to_string(data.join("postmaster.pid"))?;
    let number = file.lines().next().and_then(|line| line.parse().ok());
    number
        .map(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
