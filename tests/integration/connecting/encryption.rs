//! `sslmode` in full, with the certificates that go with it.

use testkit::jobs::wait_for_failure;

use super::certificates::Signed;
use super::secure_server::SecureServer;

#[tokio::test]
async fn every_sslmode_gets_the_encryption_that_it_asks_for() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let root = secure.authority.root().display().to_string();
    let verifying = format!("sslrootcert={root}&sslmode=");
    // By application name: the role, whose rule in pg_hba.conf may ask for TLS or forbid it, the options, and what
    // comes of it.
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
        let uri = target.uri(
            role,
            "localhost",
            &format!("application_name={name}&{options}"),
        );
        jobs.push(target.job(name, &uri).await);
    }
    let _daemon = target.start_daemon();
    for (job, (name, _, _, is_encrypted)) in jobs.into_iter().zip(&cases) {
        target.wait_for_stream(job, name).await;
        assert_eq!(target.uses_tls(name).await, [*is_encrypted; 2], "{name}");
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_a_missing_one_is_explained() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let own = secure.authority.client("certified");
    let other = secure.authority.client("another");
    let both = |signed: &Signed| {
        format!(
            "sslmode=require&sslcert={}&sslkey={}",
            signed.certificate.display(),
            signed.key.display()
        )
    };
    let job = async |table: &str, options: &str| {
        let uri = target.uri("certified", "localhost", options);
        target.job(table, &uri).await
    };
    let good = format!("{}&application_name=certified", both(&own));
    let good = job("good", &good).await;
    let without = job("without", "sslmode=require").await;
    let other = job("other", &both(&other)).await;
    let unpaired = format!("sslcert={}", own.certificate.display());
    let unpaired = job("unpaired", &unpaired).await;
    let _daemon = target.start_daemon();

    target.wait_for_stream(good, "good").await;
    assert_eq!(target.uses_tls("certified").await, [true, true]);
    for (job, said) in [
        (without, "connection requires a valid client certificate"),
        (
            other,
            "certificate authentication failed for user \"certified\"",
        ),
        (unpaired, "sslcert and sslkey belong together"),
    ] {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
    }
}
