//! `lantern-cli start-daemon` without `--uri`: the daemon starts a private server.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use std::time::Duration;

use testkit::client::{connect, execute, wait_for_value};
use testkit::jobs::wait_for_backfill;
use testkit::paths::runtime;
use testkit::vectors::wait_for_vectors;
use testkit::wait::wait_until;
use tokio_postgres::NoTls;

use crate::support::program;

const TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_daemon_without_a_database_starts_one_and_stops_it() {
    let data_path = tempfile::tempdir().expect("a directory");
    for part in ["lib", "models", "postgres"] {
        symlink(runtime().join(part), data_path.path().join(part)).expect("a link");
    }
    let place = data_path.path().to_str().expect("a readable path");
    let mut daemon = program().start_daemon_with_env(&[("LANTERN_DATA_PATH", place)], &[]);
    daemon.wait_for_line("watching", TIMEOUT).await;

    // The printed command and example work as they are, and the password is in a file alone.
    let printed = daemon.log();
    let command = printed
        .lines()
        .find(|line| line.contains("psql"))
        .expect("how to connect")
        .trim();
    let (passfile, rest) = command
        .strip_prefix("PGPASSFILE=")
        .and_then(|rest| rest.split_once(' '))
        .expect("a password file");
    let mode = fs::metadata(passfile).expect("it is there").mode();
    assert_eq!(mode & 0o7777, 0o600);
    let entry = fs::read_to_string(passfile).expect("it is ours");
    let password = entry.trim_end().rsplit(':').next().expect("a password");
    assert!(!printed.contains(password) && password.len() > 20);
    let asked = format!("{command} --no-password --tuples-only --no-align -c 'SELECT 6 * 7'");
    let answer = Command::new("sh")
        .args(["-c", &asked])
        .output()
        .expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout),
        "42\n",
        "{answer:?}"
    );
    let uri = rest.rsplit(' ').next().expect("a URI").trim_matches('\'');
    let uri = &uri.replace("postgres@", &format!("postgres:{password}@"));
    let (_, example) = printed.split_once("for example:\n\n").expect("an example");
    let (example, _) = example.split_once("\n\n").expect("the example ends");
    let client = connect(uri).await;
    execute(&client, example).await;
    let appeared = "SELECT count(*) FROM articles WHERE title = 'My articles title' AND title_embedding IS NOT NULL";
    wait_for_backfill(&client, 1).await;
    wait_for_value(&client, appeared, 1_i64).await;
    wait_for_vectors(&client, "articles", "title", "title_embedding").await;

    let (status, _) = daemon.terminate().await;
    assert!(status.success(), "{status}");
    wait_until(
        "the server is gone",
        TIMEOUT,
        async || match tokio_postgres::connect(uri, NoTls).await {
            Ok(_) => Err("it answers"),
            Err(_) => Ok(()),
        },
    )
    .await;
}
