//! What can go wrong between this client and a walsender.
//!
//! Whether to retry is the caller's decision: [`ReplicationError::code`] has the SQLSTATE of an error that the server
//! reported, and [`ReplicationError::is_link_failure`] tells a broken connection from two sides that do not agree.

use std::error::Error;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::SqlState;

/// A failure of a replication connection. Never contains the password.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The TLS handshake failed, or the server has no TLS under `sslmode=require`.
    #[error("cannot set up TLS: {0}")]
    Tls(Box<dyn Error + Send + Sync>),

    /// The connection settings or a command cannot be sent as they are.
    #[error("unusable connection settings: {0}")]
    Config(String),

    /// The server asks for proof that this client cannot give. A refusal by the server is a
    /// [`ReplicationError::Server`].
    #[error("cannot authenticate: {0}")]
    Authentication(String),

    /// The server reported an error.
    #[error("{}", sentence(.message, .code, .detail.as_deref(), .hint.as_deref()))]
    Server {
        /// What kind of error it is (PostgreSQL manual, appendix "PostgreSQL Error Codes").
        code: SqlState,
        /// `ERROR`, `FATAL` or `PANIC`.
        severity: Box<str>,
        /// The server's words, in its language.
        message: Box<str>,
        /// More about the error, if the server says more.
        detail: Option<Box<str>>,
        /// What to do about it, if the server has a proposal.
        hint: Option<Box<str>>,
    },

    /// The peer does not speak the replication protocol: it is no PostgreSQL server, or another program is in between.
    #[error("unexpected data from the server: {0}")]
    Protocol(String),

    /// The connection broke.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),

    /// The server ended the connection or the stream.
    #[error("the server closed the connection")]
    Closed,

    /// The server did not do `what` in time.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// The action that was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
}

fn sentence(message: &str, code: &SqlState, detail: Option<&str>, hint: Option<&str>) -> String {
    let mut sentence = format!("{message} (SQLSTATE {})", code.code());
    for more in [detail, hint].into_iter().flatten() {
        sentence.push_str(". ");
        sentence.push_str(more.trim_end_matches('.'));
    }
    sentence
}

impl ReplicationError {
    /// The SQLSTATE, if the server reported the error.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether the connection broke or was too slow, as opposed to two sides that do not agree.
    ///
    /// Such a failure may pass without a change by a person. Never true for an error with a [`code`](Self::code).
    pub fn is_link_failure(&self) -> bool {
        match self {
            Self::Io(_) | Self::Closed | Self::Timeout { .. } => true,
            Self::Tls(cause) => cause.downcast_ref().is_some_and(is_cut),
            Self::Server { .. } | Self::Config(_) | Self::Authentication(_) | Self::Protocol(_) => {
                false
            }
        }
    }

    pub(super) fn protocol(what: impl ToString) -> ReplicationError {
        Self::Protocol(what.to_string())
    }

    /// From the fields of an ErrorResponse (manual: "Error and Notice Message Fields").
    pub(super) fn server(mut fields: ErrorFields<'_>) -> ReplicationError {
        let (mut severity, mut code, mut message) = (None, None, None);
        let (mut detail, mut hint) = (None, None);
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes());
            let value = Some(text.into_owned().into_boxed_str());
            match field.type_() {
                b'V' => severity = value, // what `S` says, untranslated
                b'C' => code = value,
                b'M' => message = value,
                b'D' => detail = value,
                b'H' => hint = value,
                _ => {}
            }
        }
        Self::Server {
            code: code.map_or(SqlState::INTERNAL_ERROR, |code| SqlState::from_code(&code)),
            severity: severity.unwrap_or_else(|| "ERROR".into()),
            message: message.unwrap_or_else(|| "an error without a message".into()),
            detail,
            hint,
        }
    }
}

/// Whether the connection broke during the handshake.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    matches!(
        error.kind(),
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: &str) -> ReplicationError {
        ReplicationError::Server {
            code: SqlState::from_code(code),
            severity: "FATAL".into(),
            message: "something happened".into(),
            detail: Some("There is more to say.".into()),
            hint: None,
        }
    }

    #[test]
    fn a_broken_connection_is_a_link_failure_and_a_refusal_is_not() {
        assert!(ReplicationError::Closed.is_link_failure());
        assert!(
            ReplicationError::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_link_failure()
        );
        assert!(!ReplicationError::protocol("?").is_link_failure());
        // An outage by its code, but the link has carried the server's answer.
        assert!(!server("57P01").is_link_failure());
    }

    #[test]
    fn a_server_error_reads_as_one_sentence_with_its_code() {
        assert_eq!(
            server("57P01").to_string(),
            "something happened (SQLSTATE 57P01). There is more to say"
        );
        assert_eq!(server("57P01").code(), Some(&SqlState::ADMIN_SHUTDOWN));
    }

    #[test]
    fn a_handshake_that_was_cut_is_a_link_failure_and_a_bad_certificate_is_not() {
        let tls = |kind| ReplicationError::Tls(Box::new(io::Error::from(kind)));
        assert!(tls(io::ErrorKind::UnexpectedEof).is_link_failure());
        assert!(!tls(io::ErrorKind::InvalidData).is_link_failure());
    }
}
