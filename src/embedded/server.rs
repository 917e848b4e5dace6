//! A running private server, as its owner sees it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::directory::ServerDirectory;
use super::error::EmbeddedError;
use super::installation::Installation;
use super::launch::{Launch, RunningServer};
use super::options::ServerOptions;
use super::supervised_process::Lifetime;

/// A running PostgreSQL server that belongs to this process: it stops when this value is dropped and when the process
/// ends, even if the process is killed.
///
/// The server is configured for logical replication and listens on 127.0.0.1 and on a Unix socket. Its only role is the
/// superuser `postgres`, whose random password is part of [`uri`](Self::uri). The password is required because other
/// users of the machine can connect to 127.0.0.1 too.
#[derive(Debug)]
pub struct PrivatePostgres {
    server: RunningServer,
    installation: Installation,
}

impl PrivatePostgres {
    /// Starts a server and waits until it accepts connections. Blocks.
    ///
    /// # Errors
    ///
    /// If the directory, the account or the port cannot be used, or the server does not start; then the error quotes
    /// the server's log.
    pub fn start(
        installation: &Installation,
        options: ServerOptions,
    ) -> Result<Self, EmbeddedError> {
        let account = Account::for_server()?;
        let directory = ServerDirectory::open(&options.data_directory, &account)?;
        let launch = Launch {
            installation,
            account,
            options,
            lifetime: Lifetime::Persistent,
        };
        Self::launch(launch, directory)
    }

    /// Starts a server in a temporary directory, which is removed when the server stops. Blocks.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
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
            options: ServerOptions {
                settings,
                durable: false,
                ..ServerOptions::new(&root)
            },
            lifetime: Lifetime::Temporary,
        };
        Self::launch(launch, directory).inspect_err(|_| {
            let _ = fs::remove_dir_all(&root);
        })
    }

    fn launch(launch: Launch<'_>, directory: ServerDirectory) -> Result<Self, EmbeddedError> {
        let installation = launch.installation.clone();
        let server = launch.run(directory)?;
        Ok(Self {
            server,
            installation,
        })
    }

    /// A connection string for the superuser, with its password.
    #[must_use]
    pub fn uri(&self, database: &str) -> String {
        format!(
            "postgresql://postgres:{}@127.0.0.1:{}/{}",
            self.server.password,
            self.server.port,
            percent_encoded(database)
        )
    }

    /// The TCP port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.server.password
    }

    /// A password file with the superuser's password, for our own user: `PGPASSFILE`.
    #[must_use]
    pub fn passfile(&self) -> PathBuf {
        self.server.directory.passfile()
    }

    /// The directory of the Unix socket; `None` if the path of the data directory is too long for a socket.
    #[must_use]
    pub fn socket_directory(&self) -> Option<&Path> {
        self.server.directory.socket_directory()
    }

    /// The directory of the programs, such as psql, that belong to this server.
    #[must_use]
    pub fn bindir(&self) -> &Path {
        self.installation.bindir()
    }

    /// The server's major version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.installation.version()
    }

    /// The directory that holds all files of this server.
    #[must_use]
    pub fn data_directory(&self) -> &Path {
        self.server.directory.root()
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.server.directory.log()
    }

    /// Stops the server and waits until it has ended. Dropping the value does the same but cannot report a failure.
    ///
    /// # Errors
    ///
    /// If the server does not stop.
    pub fn stop(mut self) -> Result<(), EmbeddedError> {
        if self.server.process.stop() {
            return Ok(());
        }
        Err(EmbeddedError::Stop {
            directory: self.data_directory().to_owned(),
        })
    }
}

/// Encodes all bytes except the unreserved characters of a URI (RFC 3986, section 2.3).
#[must_use]
pub fn percent_encoded(text: &str) -> String {
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
