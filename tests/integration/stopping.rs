//! How the daemon stops, what it has confirmed by then, and what it does not log.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill};
use testkit::vectors::wait_for_vectors;
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Process, TestDatabase, server};
use tokio_postgres::Client;

use crate::support::{program, start_daemon};

/// A job that streams, and a daemon with these arguments.
async fn streaming(arguments: &[&str]) -> (TestDatabase, Client, Process) {
    let (database, client) = articles(server::shared()).await;
    let job = insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let daemon = start_daemon(&database, arguments);
    wait_for_backfill(&client, job).await;
    (database, client, daemon)
}

/// Rows that keep the daemon busy for a while: texts of 60 words, in transactions of 20 rows.
async fn backlog(client: &Client, transactions: u32) {
    let insert = format!(
        "DO $$ BEGIN FOR t IN 1..{transactions} LOOP
           INSERT INTO articles (title) SELECT t || '/' || n || repeat(' some words', 30) FROM generate_series(1, 20) n;
           COMMIT;
         END LOOP; END $$"
    );
    execute(client, &insert).await;
}

/// Waits until part of the backlog is done.
async fn in_the_middle(client: &Client) {
    let some = "SELECT count(vector) > 0 FROM articles";
    wait_for_value(client, some, true).await;
    let all = "SELECT count(vector) = count(*) FROM articles";
    assert!(
        !value::<bool>(client, all).await,
        "the backlog is done already"
    );
}

#[tokio::test]
async fn sigterm_in_the_middle_of_a_backlog_ends_in_time_and_loses_nothing() {
    let (database, client, mut daemon) = streaming(&[]).await;
    backlog(&client, 30).await;
    in_the_middle(&client).await;
    let (status, took) = daemon.terminate().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    let active =
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    wait_for_value(&client, active, 0_i64).await;

    // What is left is cut short, to spare the machine; the end of the stream is after it.
    execute(
        &client,
        "UPDATE articles SET title = 'short ' || id % 20 WHERE vector IS NULL",
    )
    .await;
    let _daemon = start_daemon(&database, &[]);
    wait_for_value(
        &client,
        "SELECT count(*) FROM articles WHERE vector IS NULL",
        0_i64,
    )
    .await;
    let short = "(SELECT * FROM articles WHERE title LIKE 'short%' OR id % 300 = 0) a";
    wait_for_vectors(&client, short, "title", "vector").await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (_database, client, mut daemon) = streaming(&[]).await;
    backlog(&client, 50).await;
    in_the_middle(&client).await;
    daemon.signal(Signal::SIGINT);
    daemon.wait_for_line("asked to stop", TIMEOUT).await;
    daemon.signal(Signal::SIGTERM);
    let (status, took) = daemon.wait(TIMEOUT).await;
    assert_eq!(status.code(), Some(143), "{status}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

#[tokio::test]
async fn being_killed_again_and_again_loses_nothing() {
    let (database, client, mut daemon) = streaming(&[]).await;
    for round in 0..5 {
        // Each time at another point: none, some or most of what this round brought is done.
        execute(
            &client,
            &format!(
                "INSERT INTO articles (title) SELECT 'round {round}, row ' || n FROM generate_series(1, 60) n;
                 UPDATE articles SET title = 'changed in {round}: ' || id % 10 WHERE id % 9 = {round};
                 UPDATE articles SET title = NULL WHERE id % 31 = {round}"
            ),
        )
        .await;
        let done = format!(
            "SELECT count(vector) >= {} FROM articles WHERE title LIKE 'round {round}%'",
            round * 10
        );
        wait_for_value(&client, &done, true).await;
        daemon.kill();
        execute(
            &client,
            &format!("UPDATE articles SET title = 'alone ' || {round} WHERE id % 50 = {round}"),
        )
        .await;
        daemon = start_daemon(&database, &[]);
    }
    wait_for_vectors(&client, "articles", "title", "vector").await;
}

#[tokio::test]
async fn the_confirmed_position_follows_the_vector() {
    let (_database, client, _daemon) = streaming(&[]).await;
    for round in 0..5 {
        execute(
            &client,
            &format!("INSERT INTO articles (title) VALUES ('row {round}')"),
        )
        .await;
        let position: String = value(&client, "SELECT pg_current_wal_flush_lsn()::text").await;
        wait_for_value(
            &client,
            "SELECT count(*) FROM articles WHERE vector IS NULL",
            0_i64,
        )
        .await;
        let confirmed = format!(
            "SELECT confirmed_flush_lsn >= '{position}' FROM pg_replication_slots WHERE database = current_database()"
        );
        // The server notes it when the message arrives: within milliseconds, unless the machine is busy.
        wait_until(
            "the position is confirmed",
            Duration::from_secs(2),
            async || {
                let confirmed: bool = value(&client, &confirmed).await;
                if confirmed {
                    Ok(())
                } else {
                    Err("it is behind")
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn the_password_stays_out_of_sight_and_json_lines_are_json() {
    let (database, client) = articles(server::shared()).await;
    let uri = database.uri();
    let (_, rest) = uri.split_once("postgres:").expect("a user");
    let (password, _) = rest.split_once('@').expect("a password");
    assert!(password.len() > 8, "no password worth hiding: {uri}");

    // A job that works, one that cannot connect, one whose connection string is not one.
    insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
    let wrong = [
        uri.replace("127.0.0.1", "no-such-host.invalid"),
        uri.replace("127.0.0.1", "127.0.0.1:not-a-port"),
        uri.replace("postgresql://postgres", "postgresql://nobody"),
        uri.replace("test_", "no_such_database_"),
        format!("{uri}?no_such_option=1"),
    ];
    for db_connection in wrong {
        let job = Job {
            db_connection,
            ..Job::on(&database, "articles", "title", "never")
        };
        insert_job(&client, job).await;
    }
    let arguments = [
        "--table",
        "jobs",
        "--log-level",
        "trace",
        "--log-format",
        "json",
    ];
    let mut daemon = program().start_daemon_with_env(&[("LANTERN_URI", &uri)], &arguments);
    wait_for_backfill(&client, 1).await;
    wait_for_value(&client, "SELECT count(init_failed_at) >= 3 FROM jobs", true).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    wait_for_vectors(&client, "articles", "title", "vector").await;
    let command = fs::read(format!("/proc/{}/cmdline", daemon.id())).expect("it runs");
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    assert!(
        command.contains("start-daemon") && !command.contains(password),
        "{command}"
    );
    assert!(daemon.terminate().await.0.success());

    let said = "SELECT string_agg(to_jsonb(jobs)::text || ' ', '') FROM (SELECT init_failure_reason FROM jobs) jobs";
    let said: String = value(&client, said).await;
    assert!(!said.contains(password), "{said}");
    let log = daemon.log();
    assert!(!log.contains(password), "the password is in the log");
    assert!(log.lines().count() > 10, "{log}");
    for line in log.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "message"] {
            assert!(event[field].is_string(), "no {field}: {line}");
        }
    }
    let of_job = log.lines().any(|line| line.contains("\"job\":\"1\""));
    assert!(of_job, "no line says its job: {log}");
}

/// Inside the inference library's set-up, which must not be torn down under it.
#[tokio::test]
async fn a_daemon_stops_in_good_order_while_it_loads_a_model() {
    for _ in 0..5 {
        let (database, client) = articles(server::shared()).await;
        insert_job(&client, Job::on(&database, "articles", "title", "vector")).await;
        let mut daemon = start_daemon(&database, &[]);
        daemon
            .wait_for_line("starting public.articles.title", TIMEOUT)
            .await;
        let (status, _) = daemon.terminate().await;
        assert!(status.success(), "{status}: {}", daemon.log());
    }
}
