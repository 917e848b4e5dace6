//! What the server proves itself with.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate with its key. Clones share them.
#[derive(Clone)]
pub struct TlsIdentity(Arc<ServerConfig>);

/// A certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableIdentity {
    /// The file of the certificate.
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    /// The file of the key.
    #[error("there is no PEM key without a passphrase in it")]
    NoKey,
    /// A file is no PEM.
    #[error("{0}")]
    Pem(pem::Error),
    /// The two do not fit, or are of an unknown kind.
    #[error("the certificate cannot be used with the key: {0}")]
    Unfit(rustls::Error),
}

impl TlsIdentity {
    /// The certificate, with those of its issuers behind it, and its key, each as the text of a PEM file.
    ///
    /// # Errors
    /// If they cannot be read, or do not fit.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<TlsIdentity, UnusableIdentity> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(UnusableIdentity::Pem)?;
        if chain.is_empty() {
            return Err(UnusableIdentity::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => UnusableIdentity::NoKey,
            error => UnusableIdentity::Pem(error),
        })?;
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(UnusableIdentity::Unfit)?
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let mut config = config.map_err(UnusableIdentity::Unfit)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsIdentity(Arc::new(config)))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.clone())
    }
}
