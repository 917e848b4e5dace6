//! Certificate authorities and certificates, generated in each test process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority, and the folder with its certificate and those that it has signed.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone)]
pub struct Signed {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new([]).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("root.crt"), certificate.pem()).expect("a file");
        Self {
            folder,
            issuer: Issuer::new(parameters, key),
        }
    }

    /// The file with the authority's own certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.crt")
    }

    /// A certificate for a server of these names.
    pub fn server(&self, names: &[&str]) -> Signed {
        self.sign(names.first().unwrap_or(&"server"), names, false)
    }

    /// A certificate that ran out in 2020.
    pub fn expired(&self, names: &[&str]) -> Signed {
        self.sign("expired", names, true)
    }

    /// A certificate for a role, which is what its common name says.
    pub fn client(&self, role: &str) -> Signed {
        self.sign(role, &[], false)
    }

    fn sign(&self, common_name: &str, names: &[&str], is_expired: bool) -> Signed {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters
            .distinguished_name
            .push(DnType::CommonName, common_name);
        if is_expired {
            parameters.not_before = date_time_ymd(2019, 1, 1);
            parameters.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("a signature");
        write(self.folder.path(), common_name, &certificate.pem(), &key)
    }

    /// A certificate that is its own authority, as OpenSSL's `req -x509` makes it.
    pub fn self_signed(&self, names: &[&str]) -> Signed {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        write(self.folder.path(), "self-signed", &certificate.pem(), &key)
    }
}

fn write(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> Signed {
    let signed = Signed {
        certificate: folder.join(format!("{name}.crt")),
        key: folder.join(format!("{name}.key")),
    };
    fs::write(&signed.certificate, certificate).expect("a file");
    fs::write(&signed.key, key.serialize_pem()).expect("a file");
    fs::set_permissions(&signed.key, fs::Permissions::from_mode(0o600)).expect("permissions");
    signed
}
