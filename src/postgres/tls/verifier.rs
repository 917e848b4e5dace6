//! Verifies the certificate of the server as far as `sslmode` asks for it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::error::TlsError;
use super::files;
use super::options::{TlsOptions, Verification};

/// `sslmode=prefer` and `require`: checks the signatures of the handshake, but not the certificate.
#[derive(Debug)]
pub struct AcceptAny(pub Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `sslmode=verify-ca` and `verify-full`: the chain up to a trusted root, and for the latter the name of the host.
#[derive(Debug)]
pub struct Trusting {
    chain: Arc<WebPkiServerVerifier>,
    /// The certificates of `sslrootcert`. Empty for those of the operating system.
    roots: Vec<CertificateDer<'static>>,
    verification: Verification,
}

impl Trusting {
    pub fn new(
        options: &TlsOptions,
        verification: Verification,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Trusting, TlsError> {
        const WHAT: &str = "the root certificates";
        let mut store = RootCertStore::empty();
        let roots = match &options.root_certificates {
            Some(file) => {
                let roots = files::certificates(file, WHAT)?;
                for root in &roots {
                    let added = store.add(root.clone());
                    added.map_err(|reason| TlsError::file(WHAT, file, reason))?;
                }
                roots
            }
            None => {
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Vec::new()
            }
        };
        if store.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
        Ok(Trusting {
            chain: chain.build().map_err(TlsError::setup)?,
            roots,
            verification,
        })
    }

    /// Whether the chain was refused because the certificate is self-signed and its own root in `sslrootcert`.
    ///
    /// PostgreSQL's manual creates such certificates ("Creating Certificates"). OpenSSL marks them as those of an
    /// authority, which webpki refuses for a server. It checks the validity period before that.
    fn is_its_own_root(&self, certificate: &CertificateDer<'_>, error: &Error) -> bool {
        let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else {
            return false;
        };
        cause.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
            && self.roots.iter().any(|root| root == certificate)
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked =
            self.chain
                .verify_server_cert(end_entity, intermediates, host, ocsp_response, now);
        match checked {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verification == Verification::Chain => Ok(ServerCertVerified::assertion()),
            Err(error) if self.is_its_own_root(end_entity, &error) => {
                if self.verification == Verification::ChainAndHost {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, host)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
