//! Servers over TLS: HTTP/2 where it is offered, and no server that is not trusted.

use std::process::Command;

use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::Behavior;

use crate::{Client, as_strs, texts};

#[tokio::test]
async fn a_certificate_that_is_not_trusted_gets_no_text() {
    let stub = StubEngine::start_tls();
    let client = Client::impatient(&[&stub], json!({"api_key": "sk-very-secret"}));
    let error = client.embed(&["one"]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(stub.requests(), 0);
}

#[tokio::test]
async fn a_certificate_of_ssl_cert_file_is_trusted() {
    // Variables are read when a fleet is made, and may not be changed while other tests run.
    let stub = StubEngine::start_tls();
    stub.set(Behavior {
        key: Some("sk-very-secret".into()),
        ..Behavior::default()
    });
    let test = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tls::embeds_over_http2",
            "--ignored",
            "--nocapture",
        ])
        .env("SSL_CERT_FILE", stub.certificate())
        .env("STUB_URL", stub.url())
        .output()
        .unwrap();
    assert!(test.status.success(), "{test:?}");
    let seen = stub.seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.version == "HTTP/2.0"));
    assert_eq!(stub.connections(), 1);
}

#[tokio::test]
#[ignore = "needs the certificate of a stub: cargo test --test remote a_certificate_of_ssl_cert_file_is_trusted runs it"]
async fn embeds_over_http2() {
    let url = std::env::var("STUB_URL").unwrap();
    let parameters = json!({"base_url": url, "api_key": "sk-very-secret"});
    let client = Client::with(&[], parameters);
    client.embed_all(&["one"]).await;
    let texts = texts(20);
    let texts = as_strs(&texts);
    let calls = texts.chunks(2).map(|texts| client.embed_all(texts));
    futures_util::future::join_all(calls).await;
}
