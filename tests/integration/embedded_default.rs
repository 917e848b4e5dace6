//! `lantern-cli start-daemon` without `--uri`: it starts a private server and stops it again.

use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio_postgres::NoTls;

use crate::support::observe::{execute, finished, wait_for_value};
use crate::support::vectors::in_step;
use crate::support::{Daemon, runtime, wait_until};

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_daemon_without_uri_starts_its_own_server_and_stops_it() {
    let data_path = tempfile::tempdir().expect("a directory");
    for part in ["lib", "models", "postgres"] {
        symlink(runtime().join(part), data_path.path().join(part)).expect("a link");
    }
    let place = data_path.path().to_str().expect("a readable path");
    let mut daemon = Daemon::start_with_env(&[("LANTERN_DATA_PATH", place)], &[]);
    daemon.wait_for_line("watching", TIMEOUT).await;

    // Users copy what the daemon prints, so it must work as it stands.
    let printed = daemon.log();
    let (_, connect) = printed.split_once("psql '").expect("how to connect");
    let (uri, _) = connect
        .split_once('\'')
        .expect("a quoted connection string");
    let (_, example) = printed.split_once("for example:\n\n").expect("an example");
    let (example, _) = example.split_once("\n\n").expect("the example ends");
    let (client, connection) = tokio_postgres::connect(uri, NoTls)
        .await
        .expect("a session");
    tokio::spawn(connection);
    execute(&client, example).await;
    let embedded = "SELECT count(*) FROM articles WHERE title = 'My articles title' AND title_embedding IS NOT NULL";
    finished(&client, 1).await;
    wait_for_value(&client, embedded, 1_i64).await;
    in_step(&client, "articles", "title", "title_embedding").await;

    let (status, _) = daemon.sigterm_and_wait().await;
    assert!(status.success(), "{status}");
    wait_until(
        "the server has stopped",
        TIMEOUT,
        async || match tokio_postgres::connect(uri, NoTls).await {
            Ok(_) => Err("it accepts connections"),
            Err(_) => Ok(()),
        },
    )
    .await;
}
