//! Certificates that must not be trusted, and the reasons that the job gets.

use testkit::server;

use super::certificates::Authority;
use super::secure_server::{JobsDatabase, SecureServer};
use crate::support::program;

/// A server that lives as long as the process.
fn server(
    make: impl FnOnce(&Authority) -> super::certificates::Signed,
) -> Option<&'static SecureServer> {
    SecureServer::start(make).map(|server| &*Box::leak(Box::new(server)))
}

/// A job on a table that connects to `localhost` with these options fails with this reason.
async fn rejected(target: &JobsDatabase, table: &str, options: &str, said: &[&str]) {
    rejected_at(target, table, "localhost", options, said).await;
}

async fn rejected_at(target: &JobsDatabase, table: &str, host: &str, options: &str, said: &[&str]) {
    let uri = target.uri("anybody", host, options);
    target.assert_failure(table, &uri, said).await;
}

/// A name for a table.
fn table(prefix: &str, mode: &str) -> String {
    format!("{prefix}_{}", mode.replace('-', "_"))
}

#[tokio::test]
async fn a_certificate_for_another_host_or_of_another_authority_is_rejected_with_a_remedy() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let _daemon = target.start_daemon();
    let root = secure.authority.root().display().to_string();
    let stranger = Authority::new();
    let strange = stranger.root().display().to_string();

    let options = format!("sslmode=verify-full&sslrootcert={root}");
    let said = [
        "is not for the host 127.0.0.1",
        "localhost",
        "connect by a name",
    ];
    rejected_at(&target, "other_host", "127.0.0.1", &options, &said).await;
    for mode in ["verify-ca", "verify-full", "require"] {
        let options = format!("sslmode={mode}&sslrootcert={strange}");
        let said = [
            "is not signed by an authority in",
            strange.as_str(),
            "sslrootcert",
        ];
        rejected(&target, &table("stranger", mode), &options, &said).await;
    }
    let said = [
        "not signed by an authority among this system's authorities",
        "sslrootcert",
    ];
    rejected(&target, "system", "sslrootcert=system", &said).await;
    let said = ["sslrootcert=system needs sslmode=verify-full"];
    rejected(&target, "weak", "sslrootcert=system&sslmode=require", &said).await;

    // The same certificate is good enough for verify-ca under any name.
    let by_address = format!("sslmode=verify-ca&sslrootcert={root}");
    let job = target
        .job(
            "by_address",
            &target.uri("anybody", "127.0.0.1", &by_address),
        )
        .await;
    target.wait_for_stream(job, "by_address").await;
}

#[tokio::test]
async fn an_expired_certificate_is_rejected_with_a_remedy() {
    let Some(secure) = server(|authority| authority.expired(&["localhost"])) else {
        return;
    };
    let target = secure.jobs_database().await;
    let _daemon = target.start_daemon();
    for mode in ["verify-ca", "verify-full"] {
        let options = format!(
            "sslmode={mode}&sslrootcert={}",
            secure.authority.root().display()
        );
        let said = ["certificate has expired", "renew it"];
        rejected(&target, &table("refused", mode), &options, &said).await;
    }
}

#[tokio::test]
async fn a_server_without_tls_is_rejected_where_tls_is_required() {
    let target = JobsDatabase::create(server::shared()).await;
    let _daemon = target.start_daemon();
    for mode in ["require", "verify-full"] {
        let options = format!("sslmode={mode}");
        let said = ["server does not support TLS"];
        rejected(&target, &table("refused", mode), &options, &said).await;
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_as_its_own_root_and_only_for_its_host() {
    let Some(secure) = server(|authority| authority.self_signed(&["localhost"])) else {
        return;
    };
    let target = secure.jobs_database().await;
    let _daemon = target.start_daemon();
    let own = secure.authority.root().with_file_name("self-signed.crt");
    let options = format!("sslmode=verify-full&sslrootcert={}", own.display());
    let job = target
        .job("itself", &target.uri("anybody", "localhost", &options))
        .await;
    target.wait_for_stream(job, "itself").await;
    rejected_at(
        &target,
        "address",
        "127.0.0.1",
        &options,
        &["is not for the host 127.0.0.1"],
    )
    .await;
    let other = format!(
        "sslmode=verify-ca&sslrootcert={}",
        secure.authority.root().display()
    );
    rejected(&target, "authority", &other, &["certificate"]).await;
}

#[tokio::test]
async fn the_systems_authorities_are_those_of_ssl_cert_file() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let root = secure.authority.root();
    let uri = target.uri("anybody", "localhost", "sslrootcert=system");
    let job = target.job("system", &uri).await;
    let by_default = target.uri("anybody", "localhost", "sslmode=verify-full");
    let by_default = target.job("by_default", &by_default).await;
    let _daemon = program().start_daemon_with_env(
        &[("SSL_CERT_FILE", root.to_str().expect("a path"))],
        &["--uri", &uri, "--table", "jobs"],
    );
    target.wait_for_stream(job, "system").await;
    target.wait_for_stream(by_default, "by_default").await;
}
