//! Unix sockets: a server there may take the daemon for its operating-system user, and a job chooses the socket.

use testkit::jobs::wait_for_failure;
use testkit::server;

use super::secure_server::JobsDatabase;
use crate::support::start_daemon;

/// A connection string for the server's socket.
fn by_socket(target: &JobsDatabase, options: &str) -> (String, String) {
    let directory = target.server.socket_directory().expect("a socket");
    let directory = directory.to_str().expect("a path").to_owned();
    let (port, password) = (target.server.port(), target.server.password());
    let database = target.database.name();
    let text = format!(
        "host={directory} port={port} user=postgres password={password} dbname={database} {options}"
    );
    (directory, text)
}

#[tokio::test]
async fn a_job_may_use_a_socket_only_if_the_operator_names_it() {
    let target = JobsDatabase::create(server::shared()).await;
    let (directory, text) = by_socket(&target, "");
    let job = target.job("docs", &text).await;
    let mut daemon = start_daemon(&target.database, &[]);
    let reason = wait_for_failure(&target.client, job).await;
    let remedy = format!("--allow-host {directory}");
    assert!(
        reason.contains("Unix socket") && reason.contains(&remedy),
        "{reason}"
    );
    daemon.terminate().await;
    testkit::client::execute(&target.client, "UPDATE jobs SET init_failed_at = NULL").await;
    let _daemon = start_daemon(&target.database, &["--allow-host", &directory]);
    target.wait_for_stream(job, "docs").await;
}

#[tokio::test]
async fn requirepeer_names_the_account_that_the_server_must_run_as() {
    use std::os::unix::fs::MetadataExt;

    let target = JobsDatabase::create(server::shared()).await;
    let data = std::fs::metadata(target.server.data_directory().join("data")).expect("a folder");
    let account = nix::unistd::User::from_uid(data.uid().into());
    let account = account
        .expect("a list of accounts")
        .expect("an account")
        .name;
    let (directory, right) = by_socket(&target, &format!("requirepeer={account}"));
    let other = if account == "daemon" { "bin" } else { "daemon" };
    let (_, wrong) = by_socket(&target, &format!("requirepeer={other}"));
    let right = target.job("right_peer", &right).await;
    let wrong = target.job("wrong_peer", &wrong).await;
    let over_tcp = target.database.uri();
    let over_tcp = target
        .job("over_tcp", &format!("{over_tcp}?requirepeer={other}"))
        .await;
    let _daemon = start_daemon(
        &target.database,
        &["--allow-host", &directory, "--allow-host", "127.0.0.1"],
    );
    target.wait_for_stream(right, "right_peer").await;
    target.wait_for_stream(over_tcp, "over_tcp").await;
    let reason = wait_for_failure(&target.client, wrong).await;
    assert!(
        reason.contains("requirepeer") && reason.contains(&account),
        "{reason}"
    );
}
