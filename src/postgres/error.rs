//! What went wrong at a database, for two readers: the code (is it worth another try?) and the person.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connecting::ConnectFailure;
use super::sqlstate::classify;
use super::tls::TlsError;

/// An error of a database session, with the database it happened at (never with a password).
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("cannot connect to {database}: {failure}")]
    Connect {
        database: String,
        failure: ConnectFailure,
    },
    #[error("cannot connect to {database}: no answer within {} s", patience.as_secs())]
    NoAnswer {
        database: String,
        patience: Duration,
    },
    /// The session is there, but what it said last is lost.
    #[error("the session with {database} has fallen silent")]
    Silent { database: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{doing} failed: {}", describe(cause))]
    Query {
        doing: String,
        cause: tokio_postgres::Error,
    },
}

impl DatabaseError {
    /// For `map_err`: names what was being done.
    pub fn during(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
        let doing = doing.into();
        move |cause| DatabaseError::Query { doing, cause }
    }

    pub fn code(&self) -> Option<&SqlState> {
        match self {
            DatabaseError::Connect { failure, .. } => failure.code(),
            DatabaseError::Query { cause, .. } => cause.code(),
            DatabaseError::NoAnswer { .. }
            | DatabaseError::Silent { .. }
            | DatabaseError::Tls(_) => None,
        }
    }

    /// True where the same call may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            DatabaseError::Connect { failure, .. } => failure.is_transient(),
            DatabaseError::Query { cause, .. } => is_transient(cause),
            DatabaseError::NoAnswer { .. } | DatabaseError::Silent { .. } => true,
            DatabaseError::Tls(_) => false,
        }
    }
}

/// SQLSTATE decides (appendix "PostgreSQL Error Codes"); an error without one is the network's, but for our own mistakes
/// in what was asked.
pub fn is_transient(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => classify(code).is_transient(),
        None => {
            use std::error::Error;
            let authentication = error.to_string().starts_with("authentication error");
            let configuration = error.to_string().starts_with("invalid con");
            let certificate = error
                .source()
                .is_some_and(|cause| cause.to_string().contains("certificate"));
            !authentication && !configuration && !certificate
        }
    }
}

/// The server's own words with detail and hint, or the chain of causes below a network error.
pub fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error;
    if let Some(database) = error.as_db_error() {
        let mut text = database.message().to_string();
        for more in [database.detail(), database.hint()].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(more);
        }
        return format!("{text} (SQLSTATE {})", database.code().code());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
