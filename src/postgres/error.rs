//! What went wrong at a database, for two readers: the code (is it worth a retry?) and the person (what failed, and
//! what to do).

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::connection_string::ConnectionString;
use super::connection_string::server::Server;
use super::remedy;
use super::sqlstate::classify;
use super::tls;
use super::tls::error::TlsError;

/// An error of a database session. Names the database, never a password.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is no connection.
    #[error("cannot connect to {database}: {failure}")]
    Connect {
        /// The connection string, without its password.
        database: String,
        /// Why.
        failure: ConnectFailure,
    },
    /// The server accepted the connection, and then did not answer in time.
    #[error("cannot connect to {database}: no answer within {} s", patience.as_secs())]
    NoAnswer {
        /// The connection string, without its password.
        database: String,
        /// The time limit.
        patience: Duration,
    },
    /// The session is open, but does not answer.
    #[error("the session with {database} no longer answers")]
    Silent {
        /// The connection string, without its password.
        database: String,
    },
    /// The session was closed on our side, for the sake of others.
    #[error("left {database}: {reason}")]
    Left {
        /// The connection string, without its password.
        database: String,
        /// Who needs what.
        reason: &'static str,
    },
    /// TLS cannot be set up on our side.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The answer is longer than the program can keep.
    #[error("{doing} failed: the answer has more than {} MB", limit >> 20)]
    TooMuch {
        /// What the statement was for, as the subject of a sentence.
        doing: String,
        /// The most bytes of an answer.
        limit: usize,
    },
    /// A statement failed.
    #[error("{doing} failed: {}", describe(cause))]
    Query {
        /// What the statement was for, as the subject of a sentence.
        doing: String,
        /// The driver's error.
        cause: tokio_postgres::Error,
    },
}

impl DatabaseError {
    /// For `map_err`: names what was being done.
    pub fn during(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
        let doing = doing.into();
        move |cause| DatabaseError::Query { doing, cause }
    }

    /// There is no connection to `target`.
    pub fn connect(target: &ConnectionString, failure: ConnectFailure) -> DatabaseError {
        DatabaseError::Connect {
            database: target.to_string(),
            failure,
        }
    }

    /// The SQLSTATE, if a server reported the error.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            DatabaseError::Connect { failure, .. } => failure.code(),
            DatabaseError::Query { cause, .. } => cause.code(),
            DatabaseError::NoAnswer { .. }
            | DatabaseError::Silent { .. }
            | DatabaseError::Left { .. }
            | DatabaseError::TooMuch { .. }
            | DatabaseError::Tls(_) => None,
        }
    }

    /// Whether the same call may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            DatabaseError::Connect { failure, .. } => failure.is_transient(),
            DatabaseError::Query { cause, .. } => is_transient(cause),
            DatabaseError::NoAnswer { .. }
            | DatabaseError::Silent { .. }
            | DatabaseError::Left { .. } => true,
            DatabaseError::Tls(_) | DatabaseError::TooMuch { .. } => false,
        }
    }

    /// Whether the way into the database is closed until a person opens it again: the login is refused, or the database
    /// is gone. Nothing is said then about what was to be done there.
    pub fn is_access_refusal(&self) -> bool {
        match self {
            DatabaseError::Connect { failure, .. } => !failure.is_transient(),
            DatabaseError::Tls(_) => true,
            DatabaseError::Query { cause, .. } => cause.code() == Some(&SqlState::DATABASE_DROPPED),
            DatabaseError::NoAnswer { .. }
            | DatabaseError::Silent { .. }
            | DatabaseError::Left { .. }
            | DatabaseError::TooMuch { .. } => false,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectFailure {
    /// The host name could not be resolved.
    Name(io::Error),
    /// No socket could be opened.
    Unreachable(io::Error),
    /// The login failed, for the server's or the network's reason.
    Refused(tokio_postgres::Error),
    /// The TLS handshake failed: what is wrong on which side, and what to do.
    Tls(String),
    /// The server asks for a password, and there is none for it.
    PasswordMissing {
        /// For the connection string of a jobs row: others count for it than for the operator's.
        is_of_job: bool,
    },
    /// The server is not who it must be, or asks for a login that must not be answered: why, and what to do.
    Authentication(String),
    /// `connect_timeout` has passed.
    Timeout(Duration),
    /// The server does not have the role that `target_session_attrs` asks for.
    WrongRole(&'static str),
    /// The failure of each of several servers.
    Each(Vec<(Server, ConnectFailure)>),
}

impl ConnectFailure {
    /// The failures of the servers that were tried.
    pub(super) fn from_servers(mut failures: Vec<(Server, ConnectFailure)>) -> ConnectFailure {
        match failures.len() {
            1 => failures.remove(0).1,
            _ => ConnectFailure::Each(failures),
        }
    }

    /// Whether the same call may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            ConnectFailure::Name(_)
            | ConnectFailure::Unreachable(_)
            | ConnectFailure::Timeout(_)
            | ConnectFailure::WrongRole(_) => true,
            ConnectFailure::Refused(cause) => is_transient(cause),
            ConnectFailure::Tls(_)
            | ConnectFailure::PasswordMissing { .. }
            | ConnectFailure::Authentication(_) => false,
            ConnectFailure::Each(all) => all.iter().any(|(_, failure)| failure.is_transient()),
        }
    }

    /// The SQLSTATE, if a server reported the error.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            ConnectFailure::Refused(cause) => cause.code(),
            ConnectFailure::Each(all) => all.iter().find_map(|(_, failure)| failure.code()),
            _ => None,
        }
    }

    /// Whether another address or server of the same connection string may do better.
    pub(super) fn may_try_next(&self) -> bool {
        self.is_transient() || self.code().is_none()
    }

    /// Whether the server may accept the login with the other choice, TLS or no TLS.
    pub(super) fn is_about_encryption(&self) -> bool {
        match self {
            ConnectFailure::Tls(_) => true,
            // Most often a rule of pg_hba.conf (`hostssl`, `hostnossl`). A wrong password has a code of its own.
            ConnectFailure::Refused(cause) => {
                cause.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
                    || tls_cause(cause).is_some()
            }
            _ => false,
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectFailure::Name(cause) => write!(f, "its name cannot be resolved: {cause}"),
            ConnectFailure::Unreachable(cause) => cause.fmt(f),
            ConnectFailure::Refused(cause) => {
                f.write_str(&describe(cause))?;
                let refusal = cause.as_db_error();
                match refusal.and_then(|error| remedy::for_refusal(error.code(), error.message())) {
                    Some(remedy) => write!(f, ": {remedy}"),
                    None => Ok(()),
                }
            }
            ConnectFailure::Tls(what) | ConnectFailure::Authentication(what) => f.write_str(what),
            ConnectFailure::PasswordMissing { is_of_job: false } => f.write_str(
                "password missing: the server asks for one, and there is none in the connection string; set PGPASSWORD, \
                 or add a line for this host, port, database and user to the password file (~/.pgpass or PGPASSFILE)",
            ),
            ConnectFailure::PasswordMissing { is_of_job: true } => f.write_str(
                "password missing: the server asks for one, and there is none in the job's connection string, nor in the \
                 daemon's password file (~/.pgpass or PGPASSFILE) for this host, port, database and user; PGPASSWORD is for \
                 the server of --uri alone. The entry must name host and port, the job must ask for as much TLS as \
                 PGSSLMODE, and everybody's folders such as /tmp are no place for the socket",
            ),
            ConnectFailure::Timeout(limit) => write!(f, "no answer within {limit:?}"),
            ConnectFailure::WrongRole(what) => f.write_str(what),
            ConnectFailure::Each(all) => {
                for (position, (server, failure)) in all.iter().enumerate() {
                    let separator = if position == 0 { "" } else { "; " };
                    write!(f, "{separator}{server}: {failure}")?;
                }
                Ok(())
            }
        }
    }
}

/// Whether the same call may succeed later without a change by a person.
///
/// The SQLSTATE decides. An error without one comes from the network, unless the settings or a certificate are wrong.
pub fn is_transient(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => classify(code).is_transient(),
        None => !is_about_settings(error) && !is_about_certificate(error) && !is_about_types(error),
    }
}

/// Whether the driver could not do what the settings ask for. It tells the kind of an error by the first words of its
/// text alone (`error/mod.rs` of tokio-postgres 0.7).
fn is_about_settings(error: &tokio_postgres::Error) -> bool {
    let kinds = ["authentication error", "invalid configuration"];
    let text = error.to_string();
    kinds.iter().any(|kind| text.starts_with(kind))
}

/// Whether the answer has another shape than the statement asks for. PostgreSQL never sends one, so the same statement would
/// get the same answer again.
fn is_about_types(error: &tokio_postgres::Error) -> bool {
    let kinds = ["expected ", "error deserializing"];
    let text = error.to_string();
    kinds.iter().any(|kind| text.starts_with(kind))
}

fn is_about_certificate(error: &tokio_postgres::Error) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    matches!(
        tls_cause(error),
        Some(InvalidCertificate(_) | NoCertificatesPresented)
    )
}

fn tls_cause(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    error.source().and_then(tls::cause)
}

/// The most characters of a CONTEXT that are shown. It may quote statements of any length.
const MAX_CONTEXT: usize = 400;

/// Where in the users' code the error was raised, on one line: the CONTEXT of the server's message, such as `PL/pgSQL
/// function audit() line 1 at SQL statement`.
///
/// The server adds it for each level of functions that was executing (PostgreSQL manual, "Error Message Style Guide";
/// `errcontext` in `elog.c`). Our own statements call no functions but the system's, so an error with a CONTEXT comes
/// from the users' code: a trigger, a CHECK constraint, an index expression.
pub fn context(error: &DbError) -> Option<String> {
    let context = error.where_()?;
    let line = context.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CONTEXT) {
        Some((end, _)) => Some(format!("{} …", &line[..end])),
        None => Some(line),
    }
}

/// The server's words with detail and hint, or the chain of causes of an error of the network.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(database) = error.as_db_error() {
        let mut text = database.message().to_string();
        for more in [database.detail(), database.hint()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        text.push_str(&format!(" (SQLSTATE {})", database.code().code()));
        if let Some(context) = context(database) {
            text.push_str("; context: ");
            text.push_str(&context);
        }
        return text;
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    if is_about_types(error) {
        text.push_str("; PostgreSQL does not answer this way: is the server PostgreSQL?");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_is_told_from_a_server_that_is_away() {
        let kind = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for (failure, refused) in [
            (ConnectFailure::Name(kind()), false),
            (ConnectFailure::Unreachable(kind()), false),
            (ConnectFailure::Timeout(Duration::from_secs(1)), false),
            (ConnectFailure::WrongRole("a standby"), false),
            (ConnectFailure::PasswordMissing { is_of_job: true }, true),
            (
                ConnectFailure::Tls("the certificate has expired".into()),
                true,
            ),
        ] {
            let error = DatabaseError::Connect {
                database: "d".into(),
                failure,
            };
            assert_eq!(error.is_access_refusal(), refused, "{error}");
            assert_eq!(error.is_transient(), !refused, "{error}");
        }
    }
}
