//! A jobs row chooses its server, so it must not get credentials that are meant for another one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::jobs::wait_for_failure;
use testkit::server;
use tokio::net::TcpListener;

use super::secure_server::{JobsDatabase, PASSWORD, SecureServer};
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

/// A host that reads commands by the line, as many services do, gets none.
#[tokio::test]
async fn a_line_break_in_a_name_is_refused_before_anything_is_sent() {
    let target = JobsDatabase::create(server::shared()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut jobs = Vec::new();
    for (number, (name, value)) in [
        ("user", "a\r\nFLUSHALL\r\n"),
        ("dbname", "d\nQUIT"),
        ("options", "-c\ra=b"),
        ("application_name", "\u{1b}[2J"),
    ]
    .into_iter()
    .enumerate()
    {
        let user = if name == "user" { "" } else { "user=me" };
        let text = format!("host=127.0.0.1 port={port} sslmode=disable {user} {name}='{value}'");
        jobs.push((name, target.job(&format!("docs_{number}"), &text).await));
    }
    let _daemon = target.start_daemon();
    for (name, job) in jobs {
        let reason = wait_for_failure(&target.client, job).await;
        assert!(
            reason.contains(name) && reason.contains("control character"),
            "{reason}"
        );
    }
    let nothing = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
    assert!(nothing.is_err(), "a client has connected");
}
