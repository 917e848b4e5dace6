//! A PostgreSQL server for one lane of schedules, which is stopped and started again under everybody's feet.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use lantern::embedded::{Installation, PrivatePostgres, ServerOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::{Client, NoTls};

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In good order; walsenders send all they have first.
    Fast,
    /// At once, as a crash does.
    Immediate,
}

pub struct Server {
    installation: Installation,
    directory: PathBuf,
    port: u16,
    password: String,
    running: Option<PrivatePostgres>,
}

/// `wal_sender_timeout` is short, so that status updates are frequent and schedules can be. `fsync` is off (see
/// [`ServerOptions::durable`]): what a server has written survives its own crash without it, and no schedule crashes
/// the machine.
const SETTINGS: [(&str, &str); 6] = [
    ("max_connections", "100"),
    ("wal_sender_timeout", "4s"),
    ("max_replication_slots", "20"),
    ("log_line_prefix", "%m [%p] %a "),
    ("log_min_messages", "info"),
    ("deadlock_timeout", "200ms"),
];

impl Server {
    /// Blocks while the server is made and started.
    pub fn start(installation: Installation, lane: usize) -> Self {
        let name = format!("lantern-chaos-{}-{lane}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let running = launch(&installation, &directory, None);
        Self {
            installation,
            directory,
            port: running.port(),
            password: running.password().to_owned(),
            running: Some(running),
        }
    }

    /// Blocks until the server has stopped.
    pub fn stop(&mut self, how: Stop) {
        let Some(running) = self.running.take() else {
            return;
        };
        if how == Stop::Immediate {
            let postmaster = postmaster(&self.directory).expect("a running server has a pid file");
            kill(postmaster, Signal::SIGQUIT).expect("the server runs");
            while kill(postmaster, None).is_ok() {
                thread::sleep(Duration::from_millis(2));
            }
        }
        running.stop().expect("the server stops");
    }

    /// Starts the stopped server again, on the port that it had.
    pub fn start_again(&mut self) {
        if self.running.is_none() {
            self.running = Some(launch(&self.installation, &self.directory, Some(self.port)));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's connection string by way of a port, the server's own or that of a proxy.
    pub fn uri(&self, port: u16, database: &str) -> String {
        format!(
            "postgresql://postgres:{}@127.0.0.1:{port}/{database}",
            self.password
        )
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running = None;
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn launch(installation: &Installation, directory: &Path, port: Option<u16>) -> PrivatePostgres {
    let options = || ServerOptions {
        port,
        settings: SETTINGS
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        durable: false,
        ..ServerOptions::new(directory)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match PrivatePostgres::start(installation, options()) {
            Ok(server) => return server,
            // Sockets of the old server's connections may hold the port for a moment.
            Err(_) if port.is_some() && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20))
            }
            Err(error) => panic!("no server for the chaos tests: {error}"),
        }
    }
}

fn postmaster(directory: &Path) -> io::Result<Pid> {
    let file = fs::read_to_string(directory.join("data/postmaster.pid"))?;
    let number = file.lines().next().and_then(|line| line.parse().ok());
    number
        .map(Pid::from_raw)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A connection as the superuser, which says who it is.
pub async fn connect(uri: &str, application: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = uri.parse()?;
    config.application_name(application);
    config.connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// As [`connect`], and patient with a server that is just starting.
pub async fn connect_patiently(uri: &str, application: &str) -> Client {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match connect(uri, application).await {
            Ok(client) => return client,
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            Err(error) => panic!("the server does not come back: {error:?}"),
        }
    }
}
