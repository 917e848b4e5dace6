//! A daemon at trace level.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::vectors::wait_for_vectors;
use testkit::wait::TIMEOUT;
use testkit::{TestDatabase, server};

use super::{PASSWORD, assert_clean, command_lines, keywords, marked_role, url};
use crate::support::program;

const EVERYTHING: &str = "trace,tokio_postgres=trace,tokio_postgres::query=trace,tokio_postgres::prepare=trace,rustls=trace,lantern=trace";

async fn add(client: &tokio_postgres::Client, connection: String, destination: &str) -> i32 {
    let job = Job {
        schema: None,
        ..Job::at(connection, "articles", "title", destination)
    };
    insert_job(client, job).await
}

/// Jobs that work, jobs that cannot connect, and connection strings that cannot be understood.
async fn nothing_is_told(format: &str) {
    let (database, client) = articles(server::shared()).await;
    let role = marked_role(&database, &client).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    let url = url(&role, PASSWORD, &database);
    let good = [
        add(&client, url.clone(), "v1").await,
        add(&client, keywords(&role, PASSWORD, &database), "v2").await,
    ];
    let other = |from: &str, to: &str| {
        assert!(url.contains(from), "{from}");
        url.replacen(from, to, 1)
    };
    let port = format!(":{}/", server::shared().port());
    let raw = |password: &str| format!("postgresql://{role}:{password}@127.0.0.1{port}d");
    let mut bad = Vec::new();
    for connection in [
        // A wrong password, a role and a database that are not there.
        other("%63%c3%a9@", "%63x@"),
        other(&role, "nobody"),
        format!("{url}_absent"),
        // Understood wrongly or not at all.
        other(&port, &format!(":{port}")),
        other("postgresql:", "mysql:"),
        raw("m4rk@m4rk"),
        raw("12@m4rk/m4rk"),
        raw("m4rk@m4rk?m4rk"),
        raw("m4rk/m4rk?m4rk"),
        raw("%ff%fem4rk"),
        format!("{url}?sslmode=m4rk0&m4rk=1").replace("sslmode=m4rk0", "sslmode=none"),
        format!("{url}?m4rk=1"),
        format!("host=127.0.0.1 user={role} password=x m4rk dbname=d"),
        format!("host=127.0.0.1 user={role} password='m4rk"),
        format!("host=127.0.0.1 user={role} password = m4rk m4rk=2"),
        "m4rk".into(),
        "m4rk=".into(),
    ] {
        bad.push((add(&client, connection.clone(), "bad").await, connection));
    }
    // Out of reach: tried again and again.
    let gone = [
        other("127.0.0.1", "127.0.0.1:1,127.0.0.1"),
        other(&port, ":1/"),
        other("127.0.0.1", "no-such-host.invalid"),
    ];
    for connection in gone {
        add(&client, connection, "gone").await;
    }
    let mut daemon = program().start_daemon_with_env(
        &[("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")],
        &[
            "--uri",
            &url,
            "--log-level",
            EVERYTHING,
            "--log-format",
            format,
        ],
    );
    for job in good {
        wait_for_backfill(&client, job).await;
    }
    for (job, connection) in &bad {
        let reason = wait_for_failure(&client, *job).await;
        assert_clean(&format!("the reason for {connection}"), &reason);
        assert!(reason.len() > 20, "{reason}");
    }
    for destination in ["v1", "v2"] {
        wait_for_vectors(&client, "articles", "title", destination).await;
    }
    wait_for_value(
        &client,
        "SELECT count(*) >= 2 FROM jobs WHERE init_failed_at IS NULL AND init_finished_at IS NULL",
        true,
    )
    .await;
    daemon.wait_for_line("retrying in", TIMEOUT).await;
    assert_clean("the process list", &command_lines(daemon.id()));
    let statements = "SELECT string_agg(application_name || ': ' || query, E'\\n') FROM pg_stat_activity \
                      WHERE application_name LIKE 'lantern-cli%'";
    assert_clean(
        "pg_stat_activity",
        &value::<String>(&client, statements).await,
    );
    let rows = "SELECT string_agg((to_jsonb(jobs) - 'db_connection')::text, E'\\n') FROM jobs";
    assert_clean("the jobs table", &value::<String>(&client, rows).await);
    assert!(daemon.terminate().await.0.success());
    let log = daemon.log();
    assert!(
        log.len() > 5000,
        "the log is too short for trace level: {log}"
    );
    assert_clean("the log", &log);
    drop_role(&database, &role).await;
}

async fn drop_role(database: &TestDatabase, role: &str) {
    let client = database.client().await;
    execute(
        &client,
        &format!("REASSIGN OWNED BY {role} TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"),
    )
    .await;
}

#[tokio::test]
async fn no_password_is_logged_at_trace_level() {
    nothing_is_told("text").await;
}

#[tokio::test]
async fn no_password_is_logged_at_trace_level_in_json() {
    nothing_is_told("json").await;
}
