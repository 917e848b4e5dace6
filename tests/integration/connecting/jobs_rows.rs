//! A jobs row chooses its server, so it must not get credentials that are meant for another one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::jobs::wait_for_failure;

use super::secure_server::{PASSWORD, SecureServer};
use crate::support::program;

#[tokio::test]
async fn pgpassword_goes_to_the_server_of_uri_alone() {
    let Some(secure) = SecureServer::shared() else {
        return;
    };
    let target = secure.jobs_database().await;
    let home = tempfile::tempdir().expect("a folder");
    // The passfile's only entry is for any host, so it is meant for none in particular.
    let passfile = home.path().join(".pgpass");
    fs::write(&passfile, "*:*:*:*:whatever\n").expect("a file");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).expect("permissions");

    let uri = target.uri("scram", "localhost", "");
    let same = target.job("same", &uri).await;
    // The same server under other names: it might as well be a different one.
    let others = [
        ("name", target.uri("scram", "127.0.0.1", "")),
        (
            "address",
            target.uri("scram", "localhost", "hostaddr=127.0.0.1"),
        ),
        ("role", target.uri("clear", "localhost", "")),
        (
            "less_secure",
            target.uri("scram", "localhost", "sslmode=disable"),
        ),
    ];
    let mut refused = Vec::new();
    for (table, uri) in &others {
        refused.push(target.job(table, uri).await);
    }
    let passfile = target.uri("scram", "localhost", "passfile=/etc/passwd");
    let passfile = target.job("passfile", &passfile).await;
    let service = target.job("service", "service=here").await;

    let home = home.path().to_str().expect("a path");
    let _daemon = program().start_daemon_with_env(
        &[("HOME", home), ("PGPASSWORD", PASSWORD)],
        &["--uri", &uri, "--table", "jobs"],
    );
    target.wait_for_stream(same, "same").await;
    for job in refused {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(reason.contains("password missing"), "{reason}");
    }
    for job in [passfile, service] {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(
            reason.contains("names a file of the daemon's machine"),
            "{reason}"
        );
    }
}
