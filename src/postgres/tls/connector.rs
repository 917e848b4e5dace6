//! From TLS options to the connector that SQL sessions and the replication client share.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use tokio::time::timeout;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::TlsError;
use super::files;
use super::named_file::NamedFile;
use super::options::{MinimumVersion, TlsOptions, Verification};
use super::verifier::{AcceptAny, Trusting};

/// How long reading the files may take. They may be on a network's file system.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the files that `options` name and builds the connector. The files are read on a thread of their own, because
/// all sessions share the runtime's.
///
/// # Errors
/// If a file of certificates cannot be read, or the parts do not fit together.
pub async fn connector(options: &TlsOptions) -> Result<MakeRustlsConnect, TlsError> {
    let options = options.clone();
    let building = tokio::task::spawn_blocking(move || build(&options));
    match timeout(PATIENCE, building).await {
        Ok(Ok(built)) => built,
        Ok(Err(failed)) => Err(TlsError::setup(failed)),
        Err(_) => Err(TlsError::Silent),
    }
}

fn build(options: &TlsOptions) -> Result<MakeRustlsConnect, TlsError> {
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
            .map_err(|reason| match key {
                NamedFile::Operators(_) => TlsError::setup(reason),
                NamedFile::Jobs { .. } => TlsError::file("the client key", key, reason),
            })?,
        _ => builder.with_no_client_auth(),
    };
    // A server demands this protocol name (ALPN) under sslnegotiation=direct (manual: "SSL Session Encryption").
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}
