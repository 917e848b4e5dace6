//! What can go wrong between us and a walsender, and whether trying again can help.

use std::error::Error;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use tokio_postgres::error::SqlState;

use crate::postgres::remedy;

/// A failure of a replication connection. Never contains the password.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// No connection to a host, or none that was of use.
    #[error("cannot connect to {host}: {source}")]
    Connect { host: String, source: io::Error },

    /// The TLS handshake with a host failed, or the server does not speak TLS and has to.
    #[error("cannot set up TLS with {host}: {source}")]
    Tls {
        host: String,
        source: Box<dyn Error + Send + Sync>,
    },

    /// The connection settings cannot be used as they are.
    #[error("unusable connection settings: {0}")]
    Config(String),

    /// The server and we found no way to prove who we are. A refusal by the server is a
    /// [`ReplicationError::Server`].
    #[error("cannot authenticate: {0}")]
    Authentication(String),

    /// The server refused the connection, and this is what to do about it.
    #[error("{refusal}: {remedy}")]
    Refused {
        refusal: Box<ReplicationError>,
        remedy: &'static str,
    },

    /// The server reported an error.
    #[error("{}", sentence(.message, .code, .detail.as_deref(), .hint.as_deref()))]
    Server {
        code: SqlState,
        /// `ERROR`, `FATAL` or `PANIC`.
        severity: Box<str>,
        message: Box<str>,
        detail: Option<Box<str>>,
        hint: Option<Box<str>>,
    },

    /// What arrived is not the replication protocol: no PostgreSQL server, or something between it
    /// and us.
    #[error("unexpected data from the server: {0}")]
    Protocol(String),

    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),

    /// The server ended the connection or the stream.
    #[error("the server closed the connection")]
    Closed,

    #[error("{what} took longer than {limit:?}")]
    Timeout { what: String, limit: Duration },
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
    /// Whether the same attempt may succeed later without anybody changing anything.
    ///
    /// For errors of the server the SQLSTATE decides (PostgreSQL documentation, "PostgreSQL Error
    /// Codes").
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Io(_) | Self::Closed | Self::Timeout { .. } => true,
            Self::Tls { source, .. } => source.downcast_ref::<io::Error>().is_some_and(is_cut),
            Self::Server { code, .. } => crate::postgres::sqlstate::classify(code).is_transient(),
            Self::Refused { refusal, .. } => refusal.is_transient(),
            Self::Config(_) | Self::Authentication(_) | Self::Protocol(_) => false,
        }
    }

    /// The SQLSTATE, if the server reported the error.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server { code, .. } => Some(code),
            Self::Refused { refusal, .. } => refusal.code(),
            _ => None,
        }
    }

    /// The same error of connecting, with what to do about it where that is known.
    pub(super) fn with_remedy(self) -> ReplicationError {
        let remedy = match &self {
            Self::Server { code, message, .. } => remedy::for_refusal(code, message),
            _ => None,
        };
        match remedy {
            Some(remedy) => Self::Refused {
                refusal: Box::new(self),
                remedy,
            },
            None => self,
        }
    }

    pub(super) fn protocol(what: impl ToString) -> ReplicationError {
        Self::Protocol(what.to_string())
    }

    /// From the fields of an ErrorResponse (documentation: protocol-error-fields).
    pub(super) fn server(mut fields: ErrorFields<'_>) -> ReplicationError {
        let (mut severity, mut code, mut message) = (None, None, None);
        let (mut detail, mut hint) = (None, None);
        while let Ok(Some(field)) = fields.next() {
            let value = || {
                Some(
                    String::from_utf8_lossy(field.value_bytes())
                        .into_owned()
                        .into_boxed_str(),
                )
            };
            match field.type_() {
                b'V' => severity = value(), // what `S` says, untranslated
                b'C' => code = value(),
                b'M' => message = value(),
                b'D' => detail = value(),
                b'H' => hint = value(),
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

/// Whether the connection broke, as opposed to the two sides not agreeing.
fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::*;
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
            detail: Some("Nobody was hurt.".into()),
            hint: None,
        }
    }

    #[test]
    fn the_sqlstate_decides_whether_to_try_again() {
        for code in [
            "57P01", "57P03", "53300", "55006", "08006", "40001", "55P03", "58030",
        ] {
            assert!(server(code).is_transient(), "{code}");
        }
        for code in [
            "28P01", "28000", "3D000", "42704", "55000", "42601", "57P04", "58P01", "08P01",
            "XX000",
        ] {
            assert!(!server(code).is_transient(), "{code}");
        }
        assert!(ReplicationError::Closed.is_transient());
        assert!(!ReplicationError::protocol("?").is_transient());
    }

    #[test]
    fn a_server_error_reads_as_one_sentence_with_its_code() {
        assert_eq!(
            server("57P01").to_string(),
            "something happened (SQLSTATE 57P01). Nobody was hurt"
        );
        assert_eq!(server("57P01").code(), Some(&SqlState::ADMIN_SHUTDOWN));
    }

    #[test]
    fn a_cut_handshake_is_transient_and_a_bad_certificate_is_not() {
        let tls = |kind| ReplicationError::Tls {
            host: "db".into(),
            source: Box::new(io::Error::from(kind)),
        };
        assert!(tls(io::ErrorKind::UnexpectedEof).is_transient());
        assert!(!tls(io::ErrorKind::InvalidData).is_transient());
    }
}
