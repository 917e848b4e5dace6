//! Certificates and keys from files.

use std::io;
use std::os::unix::fs::MetadataExt;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::TlsError;
use super::named_file::NamedFile;
use crate::postgres::plain_file::{self, PlainFile};

/// All certificates of a PEM file.
pub fn certificates(
    file: &NamedFile,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file, what)?.content;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(TlsError::file(
            what,
            file,
            "there is no PEM certificate in it",
        )),
        all => all.map_err(|reason| TlsError::file(what, file, reason)),
    }
}

/// The key of a PEM file, which no other user may read.
pub fn private_key(file: &NamedFile) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WHAT: &str = "the client key";
    let PlainFile { content, metadata } = read(file, WHAT)?;
    // As in libpq (`fe-secure-openssl.c`): a file of root may be readable by a group of this process.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        let path = file.path().display();
        let remedy = format!("others may read it; run chmod 0600 {path}");
        return Err(TlsError::file(WHAT, file, remedy));
    }
    PrivateKeyDer::from_pem_slice(&content).map_err(|reason| match reason {
        pem::Error::NoItemsFound => {
            TlsError::file(WHAT, file, "there is no PEM key without a passphrase in it")
        }
        reason => TlsError::file(WHAT, file, reason),
    })
}

fn read(file: &NamedFile, what: &'static str) -> Result<PlainFile, TlsError> {
    let content = match file {
        NamedFile::Operators(path) => plain_file::read(path),
        NamedFile::Jobs { below: None, .. } => Err(io::ErrorKind::InvalidInput.into()),
        NamedFile::Jobs {
            path,
            below: Some(folder),
            ..
        } => plain_file::read_below(folder, path),
    };
    content.map_err(|reason| TlsError::file(what, file, reason))
}
