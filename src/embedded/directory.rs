//! The directory that holds everything of one private server.
//!
//! ```text
//!  lock          locked by the owner, holds its process id
//!  data/         PostgreSQL's data directory
//!  password      the superuser's
//!  port          of the last start
//!  server.log    and server.log.1, of the start before
//!  supervise.sh  the script that stops the server
//!  ended.PID     the exit status of the last program, for the owner with this process id
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf, absolute};

use super::account::Account;
use super::error::{EmbeddedError, failed_to};
use super::installation::SYSTEM_DIRECTORY;

/// The directory of the private server that belongs to a daemon with this data path: `<data_path>/embedded`.
///
/// If we are root and PostgreSQL's account cannot enter the data path (usually root's home directory), it is a
/// directory in `/var/lib/lantern-cli`, named after the data path.
///
/// # Errors
///
/// If we are root and there is no account for PostgreSQL, or the working directory does not exist.
pub fn default_directory(data_path: &Path) -> Result<PathBuf, EmbeddedError> {
    let data_path = absolute(data_path).map_err(failed_to("find", data_path))?;
    let existing = data_path.ancestors().find(|path| path.is_dir());
    if Account::for_server()?.can_enter(existing.unwrap_or(Path::new("/"))) {
        return Ok(data_path.join("embedded"));
    }
    let name = data_path.to_string_lossy().replace('/', "-");
    Ok(Path::new(SYSTEM_DIRECTORY).join(format!("embedded{name}")))
}

/// Number of lines of the log that an error message quotes.
const LOG_TAIL_LINES: usize = 15;

/// The directory of one private server. Only the account that the server runs as can read it. It is locked for as long
/// as this value lives.
#[derive(Debug)]
pub(super) struct ServerDirectory {
    root: PathBuf,
    _lock: File,
}

impl ServerDirectory {
    /// Creates the directory if it does not exist, and locks it.
    pub fn open(root: &Path, account: &Account) -> Result<Self, EmbeddedError> {
        let root = absolute(root).map_err(failed_to("find", root))?;
        DirBuilder::new()
            .recursive(true)
            .create(root.parent().unwrap_or(&root))
            .and_then(|()| create_private(&root))
            .map_err(failed_to("create", &root))?;
        account.own(&root)?;
        if !account.can_enter(&root) {
            return Err(EmbeddedError::Unreachable {
                directory: root,
                account: account.name().to_owned(),
            });
        }
        let lock = lock(&root)?;
        Ok(Self { root, _lock: lock })
    }

    /// Creates a directory for temporary files, with a random name.
    pub fn temporary(account: &Account) -> Result<Self, EmbeddedError> {
        // TMPDIR may be private to our own user.
        let parent = Some(std::env::temp_dir())
            .filter(|parent| account.can_enter(parent))
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let name = random_hex().map_err(failed_to("name a directory in", &parent))?;
        Self::open(&parent.join(format!("lantern-{}", &name[..12])), account)
    }

    /// The directory itself, as an absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// PostgreSQL's data directory.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The server's log since its last start.
    pub fn log(&self) -> PathBuf {
        self.root.join("server.log")
    }

    /// The directory of the server's Unix socket; `None` if its path is too long for a socket: `sun_path` has 108 bytes
    /// on Linux, the terminating null byte included (unix(7)).
    pub fn socket_directory(&self) -> Option<&Path> {
        const MAX_LENGTH: usize = 107 - "/.s.PGSQL.65535".len();
        (self.root.as_os_str().len() <= MAX_LENGTH).then_some(&self.root)
    }

    /// Creates an empty log. The log of the last start is kept beside it.
    pub fn begin_log(&self) -> Result<File, EmbeddedError> {
        let log = self.log();
        if log.exists() {
            fs::rename(&log, self.root.join("server.log.1")).map_err(failed_to("rename", &log))?;
        }
        File::create(&log).map_err(failed_to("create", &log))
    }

    /// The end of the log, for an error message.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// The superuser's password. The first call creates it.
    pub fn password(&self, account: &Account) -> Result<String, EmbeddedError> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(password) => Ok(password.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let password = random_hex().map_err(failed_to("create", &path))?;
                write_private(&path, &password).map_err(failed_to("create", &path))?;
                account.own(&path)?;
                Ok(password)
            }
            Err(error) => Err(failed_to("read", &path)(error)),
        }
    }

    /// The port of the last start. As long as it is free, it is used again, so that connection strings stay valid.
    pub fn last_port(&self) -> Option<u16> {
        let port = fs::read_to_string(self.root.join("port")).ok()?;
        port.trim().parse().ok()
    }

    /// Stores the port for the next start.
    pub fn remember_port(&self, port: u16) -> Result<(), EmbeddedError> {
        let path = self.root.join("port");
        fs::write(&path, format!("{port}\n")).map_err(failed_to("write", &path))
    }

    /// Writes the script that supervises programs. It replaces the file rather than its content: a shell reads a script
    /// while it runs it, and an earlier one may still be running.
    pub fn write_script(&self, script: &str) -> Result<PathBuf, EmbeddedError> {
        let (path, staging) = (
            self.root.join("supervise.sh"),
            self.root.join("supervise.sh.new"),
        );
        fs::write(&staging, script)
            .and_then(|()| fs::set_permissions(&staging, Permissions::from_mode(0o644)))
            .and_then(|()| fs::rename(&staging, &path))
            .map_err(failed_to("write", &path))?;
        Ok(path)
    }

    /// The file for the exit status of a supervised program. It is named after our process: the script of an earlier
    /// process that was killed may still write its own.
    pub fn status_file(&self) -> PathBuf {
        self.root.join(format!("ended.{}", std::process::id()))
    }

    /// The file with the superuser's password. It exists after [`password`](Self::password) was called.
    pub fn password_file(&self) -> PathBuf {
        self.root.join("password")
    }
}

/// Creates a directory that only its owner can read, unless it exists.
fn create_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Locks a directory for this process. The kernel releases the lock when the process ends, however it ends.
fn lock(root: &Path) -> Result<File, EmbeddedError> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed_to("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)
                .and_then(|()| write!(file, "{}", std::process::id()))
                .map_err(failed_to("write", &path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut process = String::new();
            file.read_to_string(&mut process)
                .map_err(failed_to("read", &path))?;
            Err(EmbeddedError::InUse {
                directory: root.to_owned(),
                process,
            })
        }
        Err(TryLockError::Error(error)) => Err(failed_to("lock", &path)(error)),
    }
}

/// Creates a file that only its owner can read.
fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{content}")
}

/// 128 random bits from the operating system as 32 hexadecimal digits.
fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_hexadecimal_and_differ() {
        let (one, other) = (random_hex().unwrap(), random_hex().unwrap());
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
