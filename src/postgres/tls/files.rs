//! Certificates and keys from files. A jobs row may name them, so nothing is read that only looks like one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;

/// The system's bundle of all roots has a quarter of this.
const MAX_SIZE: u64 = 1 << 20;

/// All certificates of a PEM file.
pub fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, what)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(error(what, path, "there is no PEM certificate in it")),
        all => all.map_err(|reason| error(what, path, reason)),
    }
}

/// The key of a PEM file that nobody else may read.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "the client key";
    let metadata = fs::metadata(path).map_err(|reason| error(WHAT, path, reason))?;
    // As in libpq: root's file may be readable by a group that we are in.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        let remedy = format!("others may read it; run chmod 0600 {}", path.display());
        return Err(error(WHAT, path, remedy));
    }
    PrivateKeyDer::from_pem_slice(&read(path, WHAT)?).map_err(|reason| match reason {
        pem::Error::NoItemsFound => {
            error(WHAT, path, "there is no PEM key without a passphrase in it")
        }
        reason => error(WHAT, path, reason),
    })
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    let metadata = fs::metadata(path).map_err(|reason| error(what, path, reason))?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(error(what, path, "it is not a file of at most 1 MiB"));
    }
    fs::read(path).map_err(|reason| error(what, path, reason))
}

pub fn error(what: &'static str, path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File {
        what,
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}
