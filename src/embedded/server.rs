use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::{EmbeddedError, failed_to};
use super::installation::Installation;
use super::port;
use super::postmaster::{PidFile, stop_leftover};
use super::supervisor::{Afterwards, Supervisor};

/// Recovery after a crash takes its time; a server that is not ready after this will hardly be.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How many free ports are tried when other programs take them from under us.
const PORT_ATTEMPTS: usize = 5;

/// How a [`PrivatePostgres`] is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Holds everything that the server keeps: the database itself in `data`, `server.log`, the superuser's `password`,
    /// the Unix socket. Created and initialised where it is missing. See also [`default_directory`].
    ///
    /// [`default_directory`]: super::default_directory
    pub data_directory: PathBuf,
    /// The port on 127.0.0.1. `None`: that of the last start where it is free, else any free one.
    pub port: Option<u16>,
    /// Configuration parameters, such as `("max_connections", "400")`. They win over those chosen here.
    pub settings: Vec<(String, String)>,
    /// Whether what was committed survives the crash of the machine. `false` is faster.
    pub durable: bool,
}

impl Options {
    /// A durable server in `data_directory`, on the port of its last start.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        Self {
            data_directory: data_directory.into(),
            port: None,
            settings: Vec::new(),
            durable: true,
        }
    }
}

/// A running PostgreSQL server that belongs to this process: it stops when this value is dropped and when the process
/// ends, also when that is killed.
///
/// It is ready for logical replication, listens on 127.0.0.1 and on a Unix socket, and knows one role, the superuser
/// `postgres`, whose random password is part of [`uri`](Self::uri). Without it nobody gets in: other users of the machine
/// reach 127.0.0.1 too.
#[derive(Debug)]
pub struct PrivatePostgres {
    // Dropped in this order: the server stops before its directory is unlocked.
    supervisor: Supervisor,
    directory: ServerDirectory,
    installation: Installation,
    port: u16,
    password: String,
}

impl PrivatePostgres {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// Each names the object and the remedy. One that the server itself gave is quoted from its log.
    pub fn start(installation: &Installation, options: Options) -> Result<Self, EmbeddedError> {
        let account = Account::for_server()?;
        let directory = ServerDirectory::open(&options.data_directory, &account)?;
        Launch {
            installation,
            account,
            options,
            temporary: false,
        }
        .run(directory)
    }

    /// Starts a server in a temporary directory, which is removed together with it.
    pub fn start_temporary(
        installation: &Installation,
        settings: Vec<(String, String)>,
    ) -> Result<Self, EmbeddedError> {
        let account = Account::for_server()?;
        let directory = ServerDirectory::temporary(&account)?;
        let options = Options {
            settings,
            durable: false,
            ..Options::new(directory.root())
        };
        Launch {
            installation,
            account,
            options,
            temporary: true,
        }
        .run(directory)
    }

    /// A connection string for the superuser, with its password.
    pub fn uri(&self, database: &str) -> String {
        format!(
            "postgresql://postgres:{}@127.0.0.1:{}/{}",
            self.password,
            self.port,
            percent_encoded(database)
        )
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The directory of the Unix socket; none where the data directory's path is too long for one.
    pub fn socket_directory(&self) -> Option<&Path> {
        self.directory.socket_directory()
    }

    /// The directory of the programs, such as psql, that belong to this server.
    pub fn bindir(&self) -> &Path {
        self.installation.bindir()
    }

    /// The server's major version.
    pub fn version(&self) -> u32 {
        self.installation.version()
    }

    /// The directory that holds everything of this server.
    pub fn data_directory(&self) -> &Path {
        self.directory.root()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.directory.log()
    }

    /// Whether the server still runs: somebody else may have stopped it.
    pub fn is_running(&mut self) -> bool {
        self.supervisor.ended().is_none()
    }

    /// Stops the server and waits for its end. Dropping it does the same, but cannot tell of failure.
    pub fn stop(mut self) -> Result<(), EmbeddedError> {
        match self.supervisor.stop() {
            true => Ok(()),
            false => Err(EmbeddedError::Stop {
                directory: self.data_directory().to_owned(),
            }),
        }
    }
}

/// What it takes to start a server.
struct Launch<'a> {
    installation: &'a Installation,
    account: Account,
    options: Options,
    temporary: bool,
}

impl Launch<'_> {
    fn run(self, directory: ServerDirectory) -> Result<PrivatePostgres, EmbeddedError> {
        let password = directory.password(&self.account)?;
        directory.initialize(self.installation, &self.account, self.options.durable)?;
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
        let afterwards = match self.temporary {
            true => Afterwards::Remove(directory.root()),
            false => Afterwards::Keep,
        };
        let mut supervisor = Supervisor::start(
            &self.account,
            &self.server_command(port, directory),
            afterwards,
            directory.begin_log()?,
        )?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // A crashed server's file lies there until the new server writes its own.
            let now = PidFile::read(&directory.data()).filter(|now| Some(now) != before.as_ref());
            if now.is_some_and(|file| file.is_ready()) {
                return Ok(supervisor);
            }
            let reason = match supervisor.ended() {
                Some(status) => format!("it ended with {status}"),
                None if Instant::now() > deadline => {
                    format!("it is not ready after {} seconds", READY_WITHIN.as_secs())
                }
                None => {
                    sleep(Duration::from_millis(5));
                    continue;
                }
            };
            return Err(EmbeddedError::Start {
                reason,
                log: directory.log(),
                tail: directory.log_tail(),
            });
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

/// Encodes all but what a URI leaves alone (RFC 3986, section 2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::percent_encoded;

    #[test]
    fn a_database_of_any_name_fits_into_a_uri() {
        assert_eq!(percent_encoded("plain_1"), "plain_1");
        assert_eq!(percent_encoded("a b/ü?"), "a%20b%2F%C3%BC%3F");
    }
}
