//! Why TLS could not be set up on our side.

use std::path::Path;

/// The TLS settings of a connection string cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys.
    #[error("cannot read {what} from {path}: {reason}")]
    File {
        /// What the file should have.
        what: &'static str,
        /// Where it is.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The certificate of the server cannot be verified.
    #[error("there are no trusted root certificates on this system; name a file with sslrootcert")]
    NoRoots,
    /// Certificate and key, or version and cipher suites, do not match.
    #[error("the TLS settings do not fit together: {0}")]
    Setup(String),
}

impl TlsError {
    pub(super) fn file(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
        TlsError::File {
            what,
            path: path.display().to_string(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn setup(reason: impl ToString) -> TlsError {
        TlsError::Setup(reason.to_string())
    }
}
