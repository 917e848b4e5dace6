//! What can go wrong with a private server. Each message names the object, the cause and the remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why a private PostgreSQL cannot be started or stopped, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// There is no PostgreSQL on this machine.
    #[error(
        "found no PostgreSQL server (looked in {}, in the directory of pg_config, in PATH and in /usr/lib/postgresql): \
         install PostgreSQL (Debian, Ubuntu: apt install postgresql), run `make setup` in a checkout of lantern-cli, \
         or name a database with --uri", bindir.display()
    )]
    NoInstallation {
        /// The directory that was searched first.
        bindir: PathBuf,
    },

    /// A program of the server is missing.
    #[error(
        "{} has no PostgreSQL server: the program {program} is missing; install the server package",
        bindir.display()
    )]
    Incomplete {
        /// The directory of the programs.
        bindir: PathBuf,
        /// The missing program.
        program: &'static str,
    },

    /// `postgres --version` printed something unexpected.
    #[error(
        "cannot determine the version of {}: it printed {output:?}; check that it is a PostgreSQL server",
        program.display()
    )]
    UnknownVersion {
        /// The server program.
        program: PathBuf,
        /// Its standard output and standard error.
        output: String,
    },

    /// We are root, and there is no other user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and there is no account postgres to run it as: create it (useradd --system \
         --user-group --no-create-home --shell /usr/sbin/nologin postgres), start lantern-cli as an ordinary user, or \
         name a database with --uri"
    )]
    NoAccount,

    /// The directory belongs to another account, which could change everything in it.
    #[error(
        "{} belongs to {owner}, but PostgreSQL runs as {account}, and the owner of the directory can change the \
         database: choose another --data-path, or, if {owner} is to be trusted with what is in it, run chown -R {account}: {}",
        directory.display(), directory.display()
    )]
    WrongOwner {
        /// The directory.
        directory: PathBuf,
        /// Its owner.
        owner: String,
        /// The account that it should belong to.
        account: String,
    },

    /// Others may write to the directory.
    #[error(
        "others than its owner may write to {} (mode {mode:04o}), and so change the database; run chmod go-w {}",
        directory.display(), directory.display()
    )]
    Writable {
        /// The directory.
        directory: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The account of the server may not enter a directory.
    #[error(
        "PostgreSQL runs as the user {account}, who may not enter {}; \
         choose another directory with --data-path, for example /var/lib/lantern-cli, \
         or start lantern-cli as an ordinary user",
        directory.display()
    )]
    Unreachable {
        /// The directory.
        directory: PathBuf,
        /// The account's name.
        account: String,
    },

    /// Another process runs a server in this directory.
    #[error(
        "the database in {} is in use by process {process}; stop it, or choose another --data-path",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The id of the other process.
        process: String,
    },

    /// A server that outlived a crash does not stop.
    #[error(
        "a server that an earlier run left behind in {} does not stop; end process {process}",
        directory.display()
    )]
    Leftover {
        /// The data directory.
        directory: PathBuf,
        /// The id of the server's process.
        process: i32,
    },

    /// The requested port is not free.
    #[error("port {port} of 127.0.0.1 is in use by another program; choose another port")]
    PortTaken {
        /// The port.
        port: u16,
    },

    /// initdb failed.
    #[error("initdb could not create a database in {}: {output}", directory.display())]
    Initdb {
        /// The data directory.
        directory: PathBuf,
        /// The end of its output.
        output: String,
    },

    /// The server did not start.
    #[error("PostgreSQL did not start: {reason}; the end of {}: {tail}", log.display())]
    Start {
        /// What was observed.
        reason: String,
        /// The server's log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },

    /// The server did not stop.
    #[error("PostgreSQL in {} does not stop; see its server.log", directory.display())]
    Stop {
        /// The server's directory.
        directory: PathBuf,
    },

    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "create".
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// For `map_err`: adds to an I/O error what was attempted and on which path.
pub(super) fn failed_to(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    move |source| EmbeddedError::Io {
        action,
        path,
        source,
    }
}
