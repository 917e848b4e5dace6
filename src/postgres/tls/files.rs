//! Certificates and keys from files. A jobs row may name a file, so only plain files of a moderate size are read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;

/// In bytes. The bundle of all roots of an operating system has a quarter of this.
const MAX_SIZE: u64 = 1 << 20;

/// All certificates of a PEM file.
pub fn certificates(
    path: &Path,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, what)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(TlsError::file(
            what,
            path,
            "there is no PEM certificate in it",
        )),
        all => all.map_err(|reason| TlsError::file(what, path, reason)),
    }
}

/// The key of a PEM file, which no other user may read.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "the client key";
    let metadata = fs::metadata(path).map_err(|reason| TlsError::file(WHAT, path, reason))?;
    // As in libpq (`fe-secure-openssl.c`): a file of root may be readable by a group of this process.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        let remedy = format!("others may read it; run chmod 0600 {}", path.display());
        return Err(TlsError::file(WHAT, path, remedy));
    }
    PrivateKeyDer::from_pem_slice(&read(path, WHAT)?).map_err(|reason| match reason {
        pem::Error::NoItemsFound => {
            TlsError::file(WHAT, path, "there is no PEM key without a passphrase in it")
        }
        reason => TlsError::file(WHAT, path, reason),
    })
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    let metadata = fs::metadata(path).map_err(|reason| TlsError::file(what, path, reason))?;
    if !metadata.is_file() || metadata.len() > MAX_SIZE {
        return Err(TlsError::file(
            what,
            path,
            "it is not a file of at most 1 MiB",
        ));
    }
    fs::read(path).map_err(|reason| TlsError::file(what, path, reason))
}
