use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::EmbeddedError;
use super::installation::Installation;
use super::launch::Launch;
use super::supervisor::{Afterwards, Supervisor};

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
    pub(super) supervisor: Supervisor,
    pub(super) directory: ServerDirectory,
    pub(super) installation: Installation,
    pub(super) port: u16,
    pub(super) password: String,
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
            afterwards: Afterwards::Keep,
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
        let root = directory.root().to_owned();
        let launch = Launch {
            installation,
            account,
            options: Options {
                settings,
                durable: false,
                ..Options::new(&root)
            },
            afterwards: Afterwards::Remove,
        };
        launch.run(directory).inspect_err(|_| {
            let _ = fs::remove_dir_all(&root);
        })
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
