//! `serve` over TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testkit::data_path;

use super::serve::{Serve, begin, request, rest};
use crate::support::program;

/// Puts a certificate for localhost and its key into a folder.
fn certificate(folder: &Path) -> CertifiedKey<rcgen::KeyPair> {
    let made = generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    fs::write(folder.join("server.crt"), made.cert.pem()).expect("it is written");
    fs::write(folder.join("server.key"), made.signing_key.serialize_pem()).expect("it is written");
    made
}

#[tokio::test]
async fn a_client_that_trusts_the_certificate_gets_vectors() {
    let folder = data_path::with_tiny_models();
    let made = certificate(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let program = program().with_data_path(folder.path());
    let (chain, key) = (path("server.crt"), path("server.key"));
    let arguments = [
        "--model",
        "chaos/one",
        "--tls-certificate",
        &chain,
        "--tls-key",
        &key,
    ];
    let serve = Serve::start(&program, &arguments).await;
    assert!(serve.process.log().contains("embeddings at https://"));

    // A client that says nothing, and one that speaks plain HTTP, hold nothing up.
    let silent = TcpStream::connect(serve.address).expect("the server listens");
    let plain = begin(
        serve.address,
        &request("/v1/embeddings", &[], br#"{"input": "w1"}"#),
    );
    assert!(!rest(plain).contains("200 OK"));

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let stream = TcpStream::connect(serve.address).expect("the server listens");
    let mut stream = StreamOwned::new(session, stream);
    let body = br#"{"input": "w1 w2", "model": "chaos/one"}"#;
    stream
        .write_all(&request("/v1/embeddings", &[], body))
        .expect("the server reads");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    drop(silent);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path());
    let other = tempfile::tempdir().expect("a folder");
    certificate(other.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("empty"), "").expect("it is written");
    let (chain, key, empty, none) = (
        path("server.crt"),
        path("server.key"),
        path("empty"),
        path("none"),
    );
    let foreign = other.path().join("server.key").display().to_string();
    for (certificate, key, words) in [
        (&chain, Some(&empty), "there is no PEM key"),
        (&empty, Some(&key), "there is no PEM certificate"),
        (&chain, Some(&foreign), "cannot be used with the key"),
        (&none, Some(&key), "No such file"),
        (&chain, Some(&none), "No such file"),
        (&chain, None, "--tls-key"),
    ] {
        let mut arguments = vec![
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--tls-certificate",
            certificate,
        ];
        arguments.extend(key.into_iter().flat_map(|key| ["--tls-key", key]));
        let output = program().run(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
    }
}
