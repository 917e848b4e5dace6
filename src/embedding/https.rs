//! HTTPS to other machines: the certificates of the system, and no redirect that is not looked at.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that verifies servers by the certificates of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others) and
/// offers these protocols by ALPN. Reads the certificates, and blocks for as long as that takes.
///
/// # Errors
///
/// The reason, for a person.
pub(super) fn client(protocols: &[&str]) -> Result<ClientBuilder, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| innermost(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("lantern-cli/", env!("CARGO_PKG_VERSION"))))
}

/// The message at the end of a chain of causes, which says what the operating system or TLS said.
pub(super) fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
