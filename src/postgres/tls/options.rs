//! The TLS part of a connection string.
//!
//! PostgreSQL manual, "SSL Support" of libpq: `sslmode` says both whether to encrypt and what to verify.

use std::path::PathBuf;

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Encryption {
    /// Never.
    Disable,
    /// Only if the server refuses a connection without TLS.
    Allow,
    /// If the server has TLS.
    #[default]
    Prefer,
    /// Always.
    Require,
}

impl Encryption {
    /// What to try in turn, each if the previous one failed because of TLS or the lack of it.
    pub fn attempts(self) -> &'static [Encryption] {
        match self {
            Encryption::Disable => &[Encryption::Disable],
            Encryption::Allow => &[Encryption::Disable, Encryption::Require],
            Encryption::Prefer => &[Encryption::Prefer, Encryption::Disable],
            Encryption::Require => &[Encryption::Require],
        }
    }
}

/// The oldest version of TLS to accept. Versions below 1.2 are not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MinimumVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// How far the certificate of the server is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verification {
    /// Not at all: the connection is encrypted, the peer is not authenticated.
    #[default]
    None,
    /// The chain up to a trusted root, not the host name.
    Chain,
    /// The chain and the host name.
    ChainAndHost,
}

/// The TLS part of a connection string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether to encrypt.
    pub encryption: Encryption,
    /// What to verify.
    pub verification: Verification,
    /// PEM file of trusted root certificates. `None` and the word `system` stand for those of the operating system.
    pub root_certificates: Option<PathBuf>,
    /// PEM file with the certificate to log in with, and those that lead to its root.
    pub client_certificate: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    pub client_key: Option<PathBuf>,
    /// The oldest version of TLS to accept.
    pub minimum_version: MinimumVersion,
}

impl TlsOptions {
    /// Whether these options accept only servers that `other` accepts too, with no less protection. The client
    /// certificate does not count.
    pub fn asks_as_much_as(&self, other: &TlsOptions) -> bool {
        self.encryption >= other.encryption
            && self.verification >= other.verification
            && self.minimum_version >= other.minimum_version
            && (self.root_certificates == other.root_certificates
                || other.verification == Verification::None)
    }
}
