//! The directory that holds everything of one private server.
//!
//! ```text
//!  lock          locked by the owner, holds its process id
//!  data/         PostgreSQL's data directory
//!  password      the superuser's
//!  port          of the last start
//!  pgpass        a password file for psql, for our own user
//!  server.log    and server.log.1, of the start before
//!  supervise.sh  the script that stops the server
//!  ended.PID     the exit status of the last program, for the owner with this process id
//! ```

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};

use nix::unistd::{Uid, User, geteuid};

use super::account::Account;
use super::error::{EmbeddedError, failed_to};
use super::files;
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
        let parent = root.parent().unwrap_or(&root);
        fs::create_dir_all(parent).map_err(failed_to("create", parent))?;
        match create_private(&root, account) {
            Err(EmbeddedError::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                check_owner(&root, account)?;
            }
            created => created?,
        }
        Self::lock(root, account)
    }

    fn lock(root: PathBuf, account: &Account) -> Result<Self, EmbeddedError> {
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
        let root = parent.join(format!("lantern-{}", &name[..12]));
        create_private(&root, account)?;
        Self::lock(root, account)
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
        match fs::rename(&log, self.root.join("server.log.1")) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed_to("rename", &log)(error));
            }
            _ => {}
        }
        files::create_new(&log, 0o644).map_err(failed_to("create", &log))
    }

    /// The end of the log, on one line, for an error message.
    pub fn log_tail(&self) -> String {
        let log = files::read(&self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join(" | ")
    }

    /// The superuser's password. The first call creates it.
    pub fn password(&self, account: &Account) -> Result<String, EmbeddedError> {
        let path = self.password_file();
        match files::read(&path) {
            Ok(password) => Ok(password.trim_end().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let password = random_hex().map_err(failed_to("create", &path))?;
                let mut file =
                    files::create_new(&path, 0o600).map_err(failed_to("create", &path))?;
                account.own(&file, &path)?;
                writeln!(file, "{password}").map_err(failed_to("write", &path))?;
                Ok(password)
            }
            Err(error) => Err(failed_to("read", &path)(error)),
        }
    }

    /// The port of the last start. As long as it is free, it is used again, so that connection strings stay valid.
    pub fn last_port(&self) -> Option<u16> {
        let port = files::read(&self.root.join("port")).ok()?;
        port.trim().parse().ok()
    }

    /// Stores the port for the next start.
    pub fn remember_port(&self, port: u16) -> Result<(), EmbeddedError> {
        let path = self.root.join("port");
        files::replace(&path, &format!("{port}\n"), 0o644).map_err(failed_to("write", &path))
    }

    /// Writes a password file (manual: "The Password File"), so that nobody has to see the password to connect.
    pub fn write_passfile(&self, port: u16, password: &str) -> Result<(), EmbeddedError> {
        let path = self.passfile();
        let entry = format!("127.0.0.1:{port}:*:postgres:{password}\n");
        files::replace(&path, &entry, 0o600).map_err(failed_to("write", &path))
    }

    /// The password file.
    pub fn passfile(&self) -> PathBuf {
        self.root.join("pgpass")
    }

    /// Writes the script that supervises programs. It replaces the file rather than its content: a shell reads a script
    /// while it runs it, and an earlier one may still be running.
    pub fn write_script(&self, script: &str) -> Result<PathBuf, EmbeddedError> {
        let path = self.root.join("supervise.sh");
        files::replace(&path, script, 0o644).map_err(failed_to("write", &path))?;
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

/// Creates a directory that only `account` can read.
fn create_private(directory: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let created = DirBuilder::new().mode(0o700).create(directory);
    created.map_err(failed_to("create", directory))?;
    let opened = File::open(directory).map_err(failed_to("open", directory))?;
    account.own(&opened, directory)
}

/// Whether a directory that was there belongs to `account`, and others may not write to it. An empty one of our own
/// user becomes the account's: it was made for this.
fn check_owner(directory: &Path, account: &Account) -> Result<(), EmbeddedError> {
    let opened = File::open(directory).map_err(failed_to("open", directory))?;
    let metadata = opened.metadata().map_err(failed_to("look at", directory))?;
    let owner = Uid::from_raw(metadata.uid());
    let wrong = |owner| EmbeddedError::WrongOwner {
        directory: directory.to_owned(),
        owner: name_of(owner),
        account: name_of(account.id()),
    };
    // The owner of a link decides where the database is.
    let link = fs::symlink_metadata(directory).map_err(failed_to("look at", directory))?;
    if link.is_symlink() && link.uid() != geteuid().as_raw() {
        return Err(wrong(Uid::from_raw(link.uid())));
    }
    let is_empty = || fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if owner == geteuid() && owner != account.id() && is_empty() {
        account.own(&opened, directory)?;
    } else if owner != account.id() {
        return Err(wrong(owner));
    }
    let mode = metadata.mode() & 0o7777;
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(EmbeddedError::Writable {
            directory: directory.to_owned(),
            mode,
        }),
    }
}

fn name_of(user: Uid) -> String {
    let account = User::from_uid(user).ok().flatten();
    account.map_or_else(|| user.to_string(), |account| account.name)
}

/// Locks a directory for this process. The kernel releases the lock when the process ends, however it ends.
fn lock(root: &Path) -> Result<File, EmbeddedError> {
    let path = root.join("lock");
    let mut file = files::open_own(&path).map_err(failed_to("open", &path))?;
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
