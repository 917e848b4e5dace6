use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf, absolute};

use super::account::Account;
use super::error::{EmbeddedError, failed_to};
use super::installation::SYSTEM_DIRECTORY;

/// Where the server of a daemon with this data path keeps its database: `<data_path>/embedded`.
///
/// Where we are root and PostgreSQL's account cannot enter the data path (root's own home directory, usually), it is a
/// directory in `/var/lib/lantern-cli`, named after the data path.
pub fn default_directory(data_path: &Path) -> Result<PathBuf, EmbeddedError> {
    let data_path = absolute(data_path).map_err(failed_to("find", data_path))?;
    let existing = data_path.ancestors().find(|path| path.is_dir());
    if Account::for_server()?.can_enter(existing.unwrap_or(Path::new("/"))) {
        return Ok(data_path.join("embedded"));
    }
    let name = data_path.to_string_lossy().replace('/', "-");
    Ok(Path::new(SYSTEM_DIRECTORY).join(format!("embedded{name}")))
}

/// Everything that one private server keeps: its data, its log, its password, its port and its socket. Only the account
/// that the server runs as can look inside. Locked for as long as this value lives.
#[derive(Debug)]
pub(super) struct ServerDirectory {
    root: PathBuf,
    _lock: File,
}

impl ServerDirectory {
    /// Creates the directory where it is missing, and locks it.
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

    /// A new directory in the system's place for temporary files.
    pub fn temporary(account: &Account) -> Result<Self, EmbeddedError> {
        let place = Some(std::env::temp_dir())
            .filter(|place| account.can_enter(place))
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let name = random_name().map_err(failed_to("name a directory in", &place))?;
        Self::open(&place.join(format!("lantern-{}", &name[..12])), account)
    }

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

    /// Where the server's Unix socket goes; nowhere where the path is too long for one (`sun_path` in unix(7)).
    pub fn socket_directory(&self) -> Option<&Path> {
        const LONGEST: usize = 107 - "/.s.PGSQL.65535".len();
        (self.root.as_os_str().len() <= LONGEST).then_some(&self.root)
    }

    /// An empty log; that of the last start is kept beside it.
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
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The superuser's password, made up at the first call.
    pub fn password(&self, account: &Account) -> Result<String, EmbeddedError> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(password) => Ok(password.trim_end().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let password = random_name().map_err(failed_to("create", &path))?;
                write_private(&path, &password).map_err(failed_to("create", &path))?;
                account.own(&path)?;
                Ok(password)
            }
            Err(error) => Err(failed_to("read", &path)(error)),
        }
    }

    /// The port of the last start: connection strings that people have written down stay valid while it can be had.
    pub fn last_port(&self) -> Option<u16> {
        let port = fs::read_to_string(self.root.join("port")).ok()?;
        port.trim().parse().ok()
    }

    pub fn remember_port(&self, port: u16) -> Result<(), EmbeddedError> {
        let path = self.root.join("port");
        fs::write(&path, format!("{port}\n")).map_err(failed_to("write", &path))
    }

    /// Puts a shell script here. Never over the former one, which may still be running.
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

    /// Where a [supervisor](super::supervisor) tells how its program ended. Named after us: the supervisor of a process
    /// that was killed may still have something to tell.
    pub fn status_file(&self) -> PathBuf {
        self.root.join(format!("ended.{}", std::process::id()))
    }

    /// Holds the superuser's password, once [`password`](Self::password) was called.
    pub fn password_file(&self) -> PathBuf {
        self.root.join("password")
    }
}

fn create_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Locks a directory for this process. The kernel takes the lock back when the process ends, however it ends.
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

fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{content}")
}

/// 128 random bits as 32 hexadecimal digits.
fn random_name() -> io::Result<String> {
    let mut bits = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}
