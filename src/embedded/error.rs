use std::io;
use std::path::{Path, PathBuf};

/// Why there is no private PostgreSQL, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "found no PostgreSQL server: looked in {}, asked pg_config, searched PATH for postgres; \
         run `make setup` in a checkout of lantern-cli, install PostgreSQL (Debian, Ubuntu: apt install postgresql), \
         or name a database with --uri", bindir.display()
    )]
    NoInstallation { bindir: PathBuf },

    #[error("{} holds no PostgreSQL server: the program {program} is missing", bindir.display())]
    Incomplete {
        bindir: PathBuf,
        program: &'static str,
    },

    #[error("cannot tell the version of {}: it says {said:?}", program.display())]
    UnknownVersion { program: PathBuf, said: String },

    #[error(
        "PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to run it as; \
         start lantern-cli as an ordinary user"
    )]
    NoAccount,

    #[error(
        "PostgreSQL runs as the user {account}, who may not enter {}; \
         name another place with --data-path, for example /var/lib/lantern-cli, or start lantern-cli as an ordinary user",
        directory.display()
    )]
    Unreachable { directory: PathBuf, account: String },

    #[error("the database in {} is in use by process {process}", directory.display())]
    InUse { directory: PathBuf, process: String },

    #[error(
        "a server that a former run left behind in {} does not stop: end process {process}",
        directory.display()
    )]
    Leftover { directory: PathBuf, process: i32 },

    #[error("port {port} of 127.0.0.1 is taken by another program; choose another port")]
    PortTaken { port: u16 },

    #[error("initdb could not create a database in {}:\n{output}", directory.display())]
    Initdb { directory: PathBuf, output: String },

    #[error("PostgreSQL did not start: {reason}; the end of {}:\n{tail}", log.display())]
    Start {
        reason: String,
        log: PathBuf,
        tail: String,
    },

    #[error("PostgreSQL in {} does not stop", directory.display())]
    Stop { directory: PathBuf },

    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// For `map_err`: an I/O error with what was attempted and on which path.
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
