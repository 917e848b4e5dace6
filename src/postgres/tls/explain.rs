//! What a failed handshake means, in a sentence with a remedy.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

use super::options::TlsOptions;

/// The TLS error inside an error of a connection, if there is one.
pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let error = match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref()?,
        None => error,
    };
    error.downcast_ref()
}

/// A sentence for the operator, for the errors that have a remedy. `host` and `options` are those of the failed
/// handshake.
pub fn explain(error: &rustls::Error, host: &str, options: &TlsOptions) -> Option<String> {
    Some(match error {
        rustls::Error::InvalidCertificate(error) => certificate(error, host, options)?,
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the server asks for a client certificate: name one with sslcert and sslkey"
                    .to_owned()
            }
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::DecryptError => format!(
                "the server does not accept the client certificate of sslcert (TLS alert {alert:?}): it has to be valid, \
                 and signed by an authority of the server's ssl_ca_file"
            ),
            _ => return None,
        },
        _ => return None,
    })
}

fn certificate(error: &CertificateError, host: &str, options: &TlsOptions) -> Option<String> {
    Some(match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it there (ssl_cert_file) and reload the server".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: compare the clocks of both machines".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = match names.is_empty() {
                true => "it has no subjectAltName, and the common name does not count".to_owned(),
                false => format!("it is for {}", names.join(", ")),
            };
            format!(
                "the server's certificate is not for the host {host} ({names}): connect by a name that it is for, or \
                 have one issued for this name"
            )
        }
        // A bad signature means an authority of the same name with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let trusted = match &options.root_certificates {
                Some(file) => format!("in {}", file.path().display()),
                None => "among this system's authorities".to_owned(),
            };
            format!(
                "the server's certificate is not signed by an authority {trusted}: name the file with the root \
                 certificate of the one that signed it with sslrootcert"
            )
        }
        _ => return None,
    })
}

/// `localhost` from `DnsName("localhost")`: rustls gives the names of a certificate in this form.
fn bare(presented: &str) -> &str {
    let inner = presented
        .split_once('(')
        .map_or(presented, |(_, inner)| inner);
    inner.trim_matches(['"', ')'])
}
