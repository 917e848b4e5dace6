//! `sslmode` in full, with the certificates that go with it.

use super::secure_server::SecureServer;
use crate::support::observe::failure;

#[tokio::test]
async fn every_sslmode_gets_the_encryption_that_it_asks_for() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let root = secure.authority.root().display().to_string();
    let verifying = format!("sslrootcert={root}&sslmode=");
    // By application name: the role, whose rule in pg_hba.conf may ask for TLS or forbid it, the options, and what comes
    // of it.
    let cases = [
        ("disable", "anybody", "sslmode=disable".to_owned(), false),
        ("allow", "anybody", "sslmode=allow".to_owned(), false),
        ("allow_must", "secured", "sslmode=allow".to_owned(), true),
        ("by_default", "anybody", String::new(), true),
        ("prefer", "anybody", "sslmode=prefer".to_owned(), true),
        (
            "prefer_may_not",
            "unsecured",
            "sslmode=prefer".to_owned(),
            false,
        ),
        ("require", "secured", "sslmode=require".to_owned(), true),
        (
            "verify_ca",
            "anybody",
            format!("{verifying}verify-ca"),
            true,
        ),
        (
            "verify_full",
            "anybody",
            format!("{verifying}verify-full"),
            true,
        ),
        (
            "tls_1_3",
            "anybody",
            "sslmode=require&ssl_min_protocol_version=TLSv1.3".to_owned(),
            true,
        ),
    ];
    let mut jobs = Vec::new();
    for (name, role, options, _) in &cases {
        let uri = scene.uri(
            role,
            "localhost",
            &format!("application_name={name}&{options}"),
        );
        jobs.push(scene.job(name, &uri).await);
    }
    let _daemon = scene.daemon();
    for (job, (name, _, _, is_encrypted)) in jobs.into_iter().zip(&cases) {
        scene.streams(job, name).await;
        assert_eq!(scene.is_under_tls(name).await, [*is_encrypted; 2], "{name}");
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_without_one_the_way_is_told() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let scene = secure.scene().await;
    let own = secure.authority.client("certified");
    let options = format!(
        "sslmode=require&sslcert={}&sslkey={}&application_name=certified",
        own.certificate.display(),
        own.key.display()
    );
    let good = scene
        .job("good", &scene.uri("certified", "localhost", &options))
        .await;
    let without = scene.uri("certified", "localhost", "sslmode=require");
    let without = scene.job("without", &without).await;
    let other = secure.authority.client("another");
    let other = format!(
        "sslmode=require&sslcert={}&sslkey={}",
        other.certificate.display(),
        other.key.display()
    );
    let other = scene
        .job("other", &scene.uri("certified", "localhost", &other))
        .await;
    let unpaired = format!("sslcert={}", own.certificate.display());
    let unpaired = scene
        .job("unpaired", &scene.uri("certified", "localhost", &unpaired))
        .await;
    let _daemon = scene.daemon();

    scene.streams(good, "good").await;
    assert_eq!(scene.is_under_tls("certified").await, [true, true]);
    for (job, said) in [
        (without, "connection requires a valid client certificate"),
        (
            other,
            "certificate authentication failed for user \"certified\"",
        ),
        (unpaired, "sslcert and sslkey belong together"),
    ] {
        let reason = failure(&scene.client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
    }
}
