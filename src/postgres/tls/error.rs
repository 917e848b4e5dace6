//! Why TLS could not be set up on our side.

use super::named_file::NamedFile;

/// The TLS settings of a connection string cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys that the operator has named.
    #[error("cannot read {what} from {path}: {reason}")]
    File {
        /// What the file should have.
        what: &'static str,
        /// Where it is.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A file of certificates or keys that a jobs row has named. One text for all that may be wrong with it: else the
    /// author of a row could find out which files there are on this machine.
    #[error(
        "{keyword} of a job must name a file below the daemon's --tls-directory: a plain file in PEM of at most 1 MiB, \
         and a key that no other user may read and that fits its certificate"
    )]
    JobsFile {
        /// The keyword that names it.
        keyword: &'static str,
    },
    /// The certificate of the server cannot be verified.
    #[error("there are no trusted root certificates on this system; name a file with sslrootcert")]
    NoRoots,
    /// Certificate and key, or version and cipher suites, do not match.
    #[error("the TLS settings do not fit together: {0}")]
    Setup(String),
    /// The file system did not answer in time.
    #[error("the files with certificates cannot be read: the file system does not answer")]
    Silent,
}

impl TlsError {
    pub(super) fn file(what: &'static str, file: &NamedFile, reason: impl ToString) -> TlsError {
        match file {
            NamedFile::Operators(path) => TlsError::File {
                what,
                path: path.display().to_string(),
                reason: reason.to_string(),
            },
            NamedFile::Jobs { keyword, .. } => TlsError::JobsFile { keyword },
        }
    }

    pub(super) fn setup(reason: impl ToString) -> TlsError {
        TlsError::Setup(reason.to_string())
    }
}
