//! The TLS part of a connection string.
//!
//! PostgreSQL manual, "SSL Support" of libpq: `sslmode` says both whether to encrypt and what to verify.

use std::path::Path;

use super::named_file::NamedFile;

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
    /// PEM file of trusted root certificates. `None` stands for those of the operating system.
    pub root_certificates: Option<NamedFile>,
    /// PEM file with the certificate to log in with, and those that lead to its root.
    pub client_certificate: Option<NamedFile>,
    /// PEM file with the key of that certificate.
    pub client_key: Option<NamedFile>,
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

    /// Whether only the right server can be at the other end. Without a file of its own, `verify-ca` accepts every
    /// server of the world that has a certificate.
    pub fn proves_the_server(&self) -> bool {
        match self.verification {
            Verification::None => false,
            Verification::Chain => self.root_certificates.is_some(),
            Verification::ChainAndHost => true,
        }
    }

    /// The keyword of the first file that a jobs row has named.
    pub fn file_of_job(&self) -> Option<&'static str> {
        let files = [
            &self.root_certificates,
            &self.client_certificate,
            &self.client_key,
        ];
        files.into_iter().find_map(|file| match file {
            Some(NamedFile::Jobs { keyword, .. }) => Some(*keyword),
            _ => None,
        })
    }

    /// Allows the files that a jobs row has named, as far as they are below this folder.
    pub fn allow_files_below(&mut self, folder: &Path) {
        let files = [
            &mut self.root_certificates,
            &mut self.client_certificate,
            &mut self.client_key,
        ];
        for file in files.into_iter().flatten() {
            file.allow_below(folder);
        }
    }
}
