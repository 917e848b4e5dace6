//! From TLS options to the connector that SQL sessions and the replication client share.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::TlsError;
use super::files;
use super::options::{MinimumVersion, TlsOptions, Verification};
use super::verifier::{AcceptAny, Trusting};

/// Reads the files that `options` name and builds the connector.
///
/// # Errors
/// If a file of certificates cannot be read, or the parts do not fit together.
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
        .map_err(TlsError::setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&options.client_certificate, &options.client_key) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(
                files::certificates(certificate, "the client certificate")?,
                files::private_key(key)?,
            )
            .map_err(TlsError::setup)?,
        _ => builder.with_no_client_auth(),
    };
    // A server demands this protocol name (ALPN) under sslnegotiation=direct (manual: "SSL Session Encryption").
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}
