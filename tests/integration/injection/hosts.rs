//! `--allow-host`: a job connects nowhere else, however its connection string is written.

use testkit::client::execute;
use testkit::jobs::{
    Job, articles, insert_job, wait_for_backfill, wait_for_failure, wait_for_slots,
};
use testkit::vectors::wait_for_vectors;
use testkit::wait::TIMEOUT;
use testkit::{TestDatabase, server};

use crate::support::program;

fn job(database: &TestDatabase, connection: String) -> Job<'_> {
    Job {
        db_connection: connection,
        ..Job::on(database, "articles", "title", "vector")
    }
}

#[tokio::test]
async fn a_job_that_names_another_host_is_rejected() {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    let (uri, port) = (database.uri(), server::shared().port());
    let here = format!("127.0.0.1:{port}");
    assert!(uri.contains(&here), "{uri}");
    let mut refused = Vec::new();
    for (place, named) in [
        (format!("localhost:{port}"), "localhost"),
        ("127.0.0.1:5".into(), "127.0.0.1:5"),
        (format!("{here},10.0.0.1:{port}"), "10.0.0.1"),
        (format!("10.0.0.1:{port},{here}"), "10.0.0.1"),
        (format!("[::1]:{port}"), "[::1]"),
        ("%2Ftmp".into(), "/tmp"),
        (format!("2130706433:{port}"), "2130706433"),
    ] {
        let connection = uri.replace(&here, &place);
        refused.push((insert_job(&client, job(&database, connection)).await, named));
    }
    let hidden = format!("{uri}?hostaddr=10.0.0.1");
    refused.push((
        insert_job(&client, job(&database, hidden)).await,
        "10.0.0.1",
    ));
    let good = insert_job(&client, job(&database, uri.clone())).await;
    let mut daemon = program().start_daemon(&[
        "--uri",
        &uri,
        "--allow-host",
        "db.example.org",
        "--allow-host",
        &here,
    ]);
    for (job, named) in &refused {
        let reason = wait_for_failure(&client, *job).await;
        assert!(
            reason.contains(named) && reason.contains("--allow-host"),
            "{named}: {reason}"
        );
    }
    wait_for_backfill(&client, good).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    // A job that worked must leave the host alone too once that is not allowed any more.
    assert!(daemon.terminate().await.0.success());
    execute(&client, "DELETE FROM jobs WHERE init_failed_at IS NOT NULL").await;
    let mut daemon = program().start_daemon(&["--uri", &uri, "--allow-host", "db.example.org"]);
    let reason = wait_for_failure(&client, good).await;
    assert!(reason.contains("--allow-host 127.0.0.1"), "{reason}");
    assert!(daemon.terminate().await.0.success());
    wait_for_slots(&client, 1).await;
    execute(&client, "UPDATE jobs SET init_failed_at = NULL").await;
    let _daemon = program().start_daemon(&["--uri", &uri]);
    wait_for_backfill(&client, good).await;
}

#[tokio::test]
async fn the_directory_of_a_unix_socket_can_be_allowed() {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    // Temporary directories have short names, so the server has a socket.
    let directory = server::shared().socket_directory().expect("a socket");
    let directory = directory.display().to_string();
    let (port, password) = (server::shared().port(), server::shared().password());
    let place = |directory: &str| {
        format!(
            "host={directory} port={port} user=postgres password={password} dbname={}",
            database.name()
        )
    };
    let bad = insert_job(&client, job(&database, place(&format!("{directory}/../x")))).await;
    let good = insert_job(&client, job(&database, place(&directory))).await;
    let uri = database.uri();
    let _daemon = program().start_daemon(&["--uri", &uri, "--allow-host", &directory]);
    assert!(
        wait_for_failure(&client, bad)
            .await
            .contains("--allow-host")
    );
    wait_for_backfill(&client, good).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

#[tokio::test]
async fn an_invalid_allow_host_is_rejected_at_the_start() {
    let (database, _client) = articles(server::shared()).await;
    let uri = database.uri();
    let mut daemon = program().start_daemon(&["--uri", &uri, "--allow-host", "a b"]);
    let (status, _) = daemon.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(2));
    assert!(daemon.log().contains("is not a host"), "{}", daemon.log());
}

#[tokio::test]
async fn the_hosts_of_the_environment_hold_for_every_command() {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    let (uri, port) = (database.uri(), server::shared().port());
    let id = insert_job(&client, job(&database, uri.clone())).await;
    let here = format!("db.example.org,127.0.0.1:{port}");
    let daemon =
        program().start_daemon_with_env(&[("LANTERN_ALLOW_HOST", &here)], &["--uri", &uri]);
    wait_for_backfill(&client, id).await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    assert!(
        !daemon.log().contains("jobs may lead to any host"),
        "{}",
        daemon.log()
    );
    drop(daemon);
    let id = id.to_string();
    for command in ["search", "verify", "resync", "retry-failed"] {
        let words: &[&str] = if command == "search" {
            &["--", "a title"]
        } else {
            &[]
        };
        let arguments = [&["--uri", &uri, "--job", &id], words].concat();
        let run = |hosts: &str| {
            let mut run = program().command(command);
            run.args(&arguments).env("LANTERN_ALLOW_HOST", hosts);
            let output = run.output().expect("lantern-cli starts");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).into_owned();
            (output.status.success(), said)
        };
        let (done, said) = run("db.example.org");
        assert!(!done && said.contains("--allow-host"), "{command}: {said}");
        let (done, said) = run(&here);
        assert!(done, "{command}: {said}");
    }
}

#[tokio::test]
async fn a_daemon_without_allow_host_warns_once_whatever_jobs_there_are() {
    let (database, client) = articles(server::shared()).await;
    let uri = database.uri();
    let first = insert_job(&client, job(&database, uri.clone())).await;
    let second = Job {
        src_column: "body",
        dst_column: "other",
        ..job(&database, uri.clone())
    };
    let second = insert_job(&client, second).await;
    let daemon = program().start_daemon(&["--uri", &uri]);
    wait_for_backfill(&client, first).await;
    wait_for_backfill(&client, second).await;
    let log = daemon.log();
    assert_eq!(log.matches("jobs may lead to any host").count(), 1, "{log}");
    assert!(log.contains("LANTERN_ALLOW_HOST"), "{log}");
}
