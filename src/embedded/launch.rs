//! Starts a server: creates the database if there is none, chooses a port, waits until the server accepts connections.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};
use super::initdb::Initdb;
use super::installation::Installation;
use super::options::ServerOptions;
use super::port;
use super::postmaster::{PidFile, stop_leftover};
use super::supervised_process::{Lifetime, SupervisedProcess};

/// How long a server may take until it accepts connections. Crash recovery replays WAL first.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a starting server is checked.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Maximum number of ports that are tried if other programs take them between our choice and the server's start.
const MAX_PORT_ATTEMPTS: usize = 5;

/// A server that is ready for connections.
#[derive(Debug)]
pub(super) struct RunningServer {
    // Fields are dropped in this order: the server stops before its directory is unlocked.
    pub process: SupervisedProcess,
    pub directory: ServerDirectory,
    pub port: u16,
    pub password: String,
}

/// What is needed to start a server.
pub(super) struct Launch<'a> {
    pub installation: &'a Installation,
    pub account: Account,
    pub options: ServerOptions,
    pub lifetime: Lifetime,
}

impl Launch<'_> {
    /// Creates the database if there is none, and starts the server on it.
    pub fn run(self, directory: ServerDirectory) -> Result<RunningServer, EmbeddedError> {
        let password = directory.password(&self.account)?;
        Initdb {
            installation: self.installation,
            account: &self.account,
            directory: &directory,
            lifetime: self.lifetime,
            durable: self.options.durable,
        }
        .run()?;
        stop_leftover(&directory.data(), self.account.id())?;
        let (process, port) = self.start_on_free_port(&directory)?;
        directory.remember_port(port)?;
        directory.write_passfile(port, &password)?;
        Ok(RunningServer {
            process,
            directory,
            port,
            password,
        })
    }

    /// Starts the server; chooses again if another program takes the port first.
    fn start_on_free_port(
        &self,
        directory: &ServerDirectory,
    ) -> Result<(SupervisedProcess, u16), EmbeddedError> {
        let mut attempts = MAX_PORT_ATTEMPTS;
        loop {
            let port = self.choose_port(directory)?;
            match self.start_on(port, directory) {
                Ok(process) => return Ok((process, port)),
                // Another program took the port between our choice and the server's start.
                Err(_) if attempts > 1 && !port::is_free(port) => attempts -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The requested port, else that of the last start, else any free one.
    fn choose_port(&self, directory: &ServerDirectory) -> Result<u16, EmbeddedError> {
        match self.options.port {
            Some(port) if port::is_free(port) => Ok(port),
            Some(port) => Err(EmbeddedError::PortTaken { port }),
            None => match directory.last_port() {
                Some(port) if port::is_free(port) => Ok(port),
                _ => port::any_free().map_err(failed_to("find a free port for", directory.root())),
            },
        }
    }

    /// Starts the server on this port and waits until it is ready.
    fn start_on(
        &self,
        port: u16,
        directory: &ServerDirectory,
    ) -> Result<SupervisedProcess, EmbeddedError> {
        // A crashed server leaves its pid file behind until the new server writes its own.
        let stale = PidFile::read(&directory.data());
        let mut process = SupervisedProcess::start(
            &self.account,
            directory,
            self.lifetime,
            &self.server_command(port, directory),
        )?;
        match wait_until_ready(&mut process, directory, stale.as_ref()) {
            Ok(()) => Ok(process),
            Err(reason) => {
                let error = EmbeddedError::Start {
                    reason,
                    log: directory.log(),
                    tail: directory.log_tail(),
                };
                process.release();
                Err(error)
            }
        }
    }

    fn server_command(&self, port: u16, directory: &ServerDirectory) -> Command {
        let mut command = Command::new(self.installation.bindir().join("postgres"));
        command.arg("-D").arg(directory.data());
        for (name, value) in self.built_in_settings(port, directory) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // If a parameter is given more than once, the last value wins.
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
    }

    fn built_in_settings(
        &self,
        port: u16,
        directory: &ServerDirectory,
    ) -> Vec<(&'static str, String)> {
        // unix_socket_directories is a comma-separated list whose items may be quoted.
        let socket = directory.socket_directory().map_or(String::new(), |path| {
            format!("\"{}\"", path.to_string_lossy().replace('"', "\"\""))
        });
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("unix_socket_directories", socket),
            ("wal_level", "logical".to_owned()),
            // Each job has a replication slot and a walsender. The default of both is 10.
            ("max_replication_slots", "100".to_owned()),
            ("max_wal_senders", "100".to_owned()),
        ];
        if !self.options.durable {
            // "Non-Durable Settings" in the manual.
            settings.push(("fsync", "off".to_owned()));
            settings.push(("full_page_writes", "off".to_owned()));
        }
        settings
    }
}

/// Waits until the server accepts connections. The error is the reason why it does not.
fn wait_until_ready(
    process: &mut SupervisedProcess,
    directory: &ServerDirectory,
    stale: Option<&PidFile>,
) -> Result<(), String> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let current = PidFile::read(&directory.data()).filter(|file| Some(file) != stale);
        if current.is_some_and(|file| file.is_ready()) {
            return Ok(());
        }
        if let Some(status) = process.exit_status() {
            return Err(format!("it ended with exit status {status}"));
        }
        if Instant::now() > deadline {
            return Err(format!(
                "it is not ready after {} seconds",
                READY_TIMEOUT.as_secs()
            ));
        }
        sleep(READY_POLL_INTERVAL);
    }
}
