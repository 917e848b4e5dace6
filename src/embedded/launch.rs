use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};
use super::initdb::Initdb;
use super::installation::Installation;
use super::port;
use super::postmaster::{PidFile, stop_leftover};
use super::server::{Options, PrivatePostgres};
use super::supervisor::{Afterwards, Supervisor};

/// Recovery after a crash takes its time; a server that is not ready after this will hardly be.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How many free ports are tried when other programs take them from under us.
const PORT_ATTEMPTS: usize = 5;

/// What it takes to start a server.
pub(super) struct Launch<'a> {
    pub installation: &'a Installation,
    pub account: Account,
    pub options: Options,
    pub afterwards: Afterwards,
}

impl Launch<'_> {
    /// Creates the database where there is none, and starts the server on it.
    pub fn run(self, directory: ServerDirectory) -> Result<PrivatePostgres, EmbeddedError> {
        let password = directory.password(&self.account)?;
        Initdb {
            installation: self.installation,
            account: &self.account,
            directory: &directory,
            afterwards: self.afterwards,
            durable: self.options.durable,
        }
        .run()?;
        stop_leftover(&directory.data())?;
        let (supervisor, port) = self.start_on_some_port(&directory)?;
        directory.remember_port(port)?;
        Ok(PrivatePostgres {
            supervisor,
            directory,
            installation: self.installation.clone(),
            port,
            password,
        })
    }

    fn start_on_some_port(
        &self,
        directory: &ServerDirectory,
    ) -> Result<(Supervisor, u16), EmbeddedError> {
        let mut attempts = PORT_ATTEMPTS;
        loop {
            let port = self.choose_port(directory)?;
            match self.start_on(port, directory) {
                Ok(supervisor) => return Ok((supervisor, port)),
                // Somebody took the port between our choice and the server's start.
                Err(_) if attempts > 1 && !port::is_free(port) => attempts -= 1,
                Err(error) => return Err(error),
            }
        }
    }

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

    fn start_on(
        &self,
        port: u16,
        directory: &ServerDirectory,
    ) -> Result<Supervisor, EmbeddedError> {
        let before = PidFile::read(&directory.data());
        let mut supervisor = Supervisor::start(
            &self.account,
            directory,
            self.afterwards,
            &self.server_command(port, directory),
        )?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // A crashed server's file lies there until the new server writes its own.
            let now = PidFile::read(&directory.data()).filter(|now| Some(now) != before.as_ref());
            if now.is_some_and(|file| file.is_ready()) {
                return Ok(supervisor);
            }
            let reason = match supervisor.ended() {
                Some(status) => format!("it ended with exit status {status}"),
                None if Instant::now() > deadline => {
                    format!("it is not ready after {} seconds", READY_WITHIN.as_secs())
                }
                None => {
                    sleep(Duration::from_millis(5));
                    continue;
                }
            };
            let error = EmbeddedError::Start {
                reason,
                log: directory.log(),
                tail: directory.log_tail(),
            };
            supervisor.dismiss();
            return Err(error);
        }
    }

    fn server_command(&self, port: u16, directory: &ServerDirectory) -> Command {
        let mut command = Command::new(self.installation.bindir().join("postgres"));
        command.arg("-D").arg(directory.data());
        for (name, value) in self.own_settings(port, directory) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // The last one of a name wins.
        for (name, value) in &self.options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
    }

    fn own_settings(&self, port: u16, directory: &ServerDirectory) -> Vec<(&'static str, String)> {
        // A list of directories, whose items may be quoted.
        let socket = directory.socket_directory().map_or(String::new(), |path| {
            format!("\"{}\"", path.to_string_lossy().replace('"', "\"\""))
        });
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("unix_socket_directories", socket),
            ("wal_level", "logical".to_owned()),
            // A slot and a walsender for each job.
            ("max_replication_slots", "100".to_owned()),
            ("max_wal_senders", "100".to_owned()),
        ];
        if !self.options.durable {
            settings.push(("fsync", "off".to_owned()));
            settings.push(("full_page_writes", "off".to_owned()));
        }
        settings
    }
}
