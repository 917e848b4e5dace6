//! TLS as `sslmode` asks for it.
//!
//! libpq's rule (section "SSL Support" of its documentation): `prefer` and `require` encrypt without looking at the
//! certificate, `verify-ca` checks that a trusted authority signed it, `verify-full` also that it was issued for the host.

mod explain;
mod files;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use tokio_postgres_rustls::MakeRustlsConnect;

pub use explain::{cause, explain};
use verifier::{AcceptAny, Trusting};

/// Whether there is TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Encryption {
    Disable,
    /// Only where the server refuses to go without.
    Allow,
    /// Where the server can.
    #[default]
    Prefer,
    Require,
}

impl Encryption {
    /// What to try one after the other, each if the one before failed for the want, or for the presence, of TLS.
    pub fn attempts(self) -> &'static [Encryption] {
        match self {
            Encryption::Disable => &[Encryption::Disable],
            Encryption::Allow => &[Encryption::Disable, Encryption::Require],
            Encryption::Prefer => &[Encryption::Prefer, Encryption::Disable],
            Encryption::Require => &[Encryption::Require],
        }
    }
}

/// The oldest version of TLS to agree on. None below 1.2 is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MinimumVersion {
    #[default]
    Tls12,
    Tls13,
}

/// What of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verification {
    /// Nothing: the connection is encrypted, the peer is not authenticated.
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
    pub encryption: Encryption,
    pub verification: Verification,
    /// PEM file of trusted roots; the system's roots where it is `None` (or the word `system`).
    pub root_certificates: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub minimum_version: MinimumVersion,
}

impl TlsOptions {
    /// Whether these options accept no server that `other` would not, nor less protection. Who we are does not matter.
    pub fn asks_as_much_as(&self, other: &TlsOptions) -> bool {
        self.encryption >= other.encryption
            && self.verification >= other.verification
            && self.minimum_version >= other.minimum_version
            && (self.root_certificates == other.root_certificates
                || other.verification == Verification::None)
    }
}

/// Why TLS could not be set up on our side.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {path}: {reason}")]
    File {
        what: &'static str,
        path: String,
        reason: String,
    },
    #[error("there are no trusted root certificates on this system; name a file with sslrootcert")]
    NoRoots,
    #[error("the TLS settings do not fit together: {0}")]
    Setup(String),
}

/// Builds the connector that both the SQL sessions and the replication connection use.
///
/// # Errors
/// When a certificate file cannot be read or the parts do not fit together.
pub fn connector(options: &TlsOptions) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match options.verification {
        Verification::None => Arc::new(AcceptAny(provider.clone())),
        verification => Arc::new(Trusting::new(options, verification, &provider)?),
    };
    let versions: &[_] = match options.minimum_version {
        MinimumVersion::Tls12 => rustls::DEFAULT_VERSIONS,
        MinimumVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| TlsError::Setup(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&options.client_certificate, &options.client_key) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(
                files::certificates(certificate, "the client certificate")?,
                files::private_key(key)?,
            )
            .map_err(|error| TlsError::Setup(error.to_string()))?,
        _ => builder.with_no_client_auth(),
    };
    // sslnegotiation=direct asks for it by name (documentation: protocol-flow, "SSL Session Encryption").
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}
