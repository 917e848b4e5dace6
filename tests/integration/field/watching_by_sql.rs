//! Operators watch their jobs by SQL, and look into the log after a restart. Both must tell the truth.

use testkit::client::{execute, value, wait_for_value};
use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::restartable::Stop;
use testkit::scene::{MOON, TIDES};
use testkit::wait::TIMEOUT;
use testkit::{RestartableServer, server};

use crate::support::notes_scene;

/// The server is down, the name is misspelt, all walsenders are taken: each shows in the row, and goes with its cause.
#[tokio::test]
async fn the_row_says_why_a_job_is_interrupted() {
    let mut target = RestartableServer::start(
        server::installation(),
        &[("wal_level", "logical"), ("max_wal_senders", "1")],
    );
    let mut scene = notes_scene().await;
    scene
        .sql(
            "DELETE FROM jobs; ALTER TABLE jobs ADD last_error TEXT, ADD last_error_at TIMESTAMPTZ",
        )
        .await;
    let client = testkit::client::connect(&target.uri("postgres")).await;
    let tables = "CREATE TABLE a (id int PRIMARY KEY, body text); CREATE TABLE b (id int PRIMARY KEY, body text)";
    execute(&client, tables).await;
    drop(client);
    let job = |table| Job::at(target.uri("postgres"), table, "body", "embedding");
    let first = insert_job(&scene.client, job("a")).await;
    scene.spawn_daemon_with(&["--allow-host", "127.0.0.1,no-such-host.invalid"]);
    let streams = format!(
        "SELECT init_finished_at IS NOT NULL AND last_error IS NULL FROM jobs WHERE id = {first}"
    );
    scene.wait_for(&streams, "true").await;
    let second = insert_job(&scene.client, job("b")).await;
    let said = |job: i32, part: &str| {
        format!(
            "SELECT COALESCE(last_error LIKE '%{part}%' AND last_error_at IS NOT NULL AND init_failed_at IS NULL, \
             false) FROM jobs WHERE id = {job}"
        )
    };
    scene
        .wait_for(&said(second, "raise max_wal_senders"), "true")
        .await;
    scene
        .sql(&format!(
            "UPDATE jobs SET canceled_at = true WHERE id = {second}"
        ))
        .await;

    target.stop(Stop::Fast);
    scene
        .wait_for(&said(first, "cannot connect to"), "true")
        .await;
    target.start_again();
    let runs =
        format!("SELECT last_error IS NULL AND last_error_at IS NULL FROM jobs WHERE id = {first}");
    scene.wait_for(&runs, "true").await;

    let misspelt = Job {
        db_connection: "postgresql://a:b@no-such-host.invalid/d".into(),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    let misspelt = insert_job(&scene.client, misspelt).await;
    scene
        .wait_for(&said(misspelt, "cannot be resolved"), "true")
        .await;
    // A password is never among what is said.
    assert_eq!(
        scene
            .value("SELECT count(*) FROM jobs WHERE last_error LIKE '%:b@%'")
            .await,
        "0"
    );
}

/// The log of a daemon that starts names each failed job, with its reason and what to run.
#[tokio::test]
async fn failed_jobs_are_named_when_a_daemon_starts() {
    let mut scene = notes_scene().await;
    scene.sql("UPDATE jobs SET \"table\" = 'nothing'").await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    let id = scene.value("SELECT id FROM jobs").await;
    let retry = format!("UPDATE \"public\".\"jobs\" SET init_failed_at = NULL WHERE id = {id};");
    let failed = scene.daemon().wait_for_line("failed: ", TIMEOUT).await;
    assert!(
        failed.contains(&reason) && failed.contains(&retry),
        "{failed}"
    );
    scene.stop_daemon().await;

    let told = scene
        .spawn_daemon()
        .wait_for_line("has failed earlier", TIMEOUT)
        .await;
    assert!(
        told.contains(&reason) && told.contains(&retry) && told.contains("WARN"),
        "{told}"
    );
    scene.write(&[TIDES]).await;
    scene
        .sql("UPDATE jobs SET \"table\" = 'notes', init_started_at = NULL")
        .await;
    scene.sql(&retry).await;
    scene.wait_for_vectors("notes", "body").await;
}

/// An id of another type is quoted.
#[tokio::test]
async fn the_statement_for_a_retry_fits_the_type_of_the_id() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ALTER id DROP DEFAULT, ALTER id TYPE text USING 'it''s'; UPDATE jobs SET \"table\" = \
        'nothing'")
        .await;
    scene.spawn_daemon();
    let line = scene.daemon().wait_for_line("failed: ", TIMEOUT).await;
    scene
        .wait_for("SELECT init_failed_at IS NOT NULL FROM jobs", "true")
        .await;
    let (_, retry) = line.split_once("tried again: ").expect("a statement");
    let (retry, _) = retry.split_once(';').expect("a statement");
    scene.sql(&retry.replace("= NULL", "= 'epoch'")).await;
    assert_eq!(
        scene.value("SELECT init_failed_at FROM jobs").await,
        "1970-01-01 00:00:00"
    );
}

/// A monitor that polls `init_finished_at` reads a new job as finished only when it is, also where the destination has
/// vectors.
#[tokio::test]
async fn a_new_job_does_not_read_as_finished_before_it_is() {
    const ROWS: i32 = 600;
    let mut scene = notes_scene().await;
    // Each row has the vector of another text.
    scene
        .sql(&format!(
            "ALTER TABLE jobs ADD init_progress INT2, ADD batch_size INT; UPDATE jobs SET batch_size = 4; \
             INSERT INTO notes (id, body, embedding) SELECT n, '{TIDES}', (SELECT vector FROM truth WHERE body = \
             '{MOON}') FROM generate_series(1, {ROWS}) n"
        ))
        .await;
    let right =
        "SELECT count(*) FROM notes JOIN truth USING (body) WHERE embedding <-> vector < 0.001";
    let first_run =
        "SELECT format('%s %s', init_started_at IS NOT NULL, init_finished_at IS NULL) FROM jobs";
    let begun = format!("SELECT ({right}) > 0");
    scene.spawn_daemon();
    scene.wait_for(&begun, "true").await;
    assert_eq!(scene.value(first_run).await, "t t");

    // That every row needs a vector is not forgotten over a restart.
    scene.kill_daemon();
    let done: i32 = scene.value(right).await.parse().expect("a number");
    assert!(
        done < ROWS,
        "the backfill was over before the daemon was killed"
    );
    scene.spawn_daemon();
    scene.wait_for_backfill().await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    let finished = "SELECT init_finished_at >= init_started_at AND init_progress = 100 FROM jobs";
    assert_eq!(scene.value(finished).await, "true");

    // A later loss of the slot shows as a repeated run: started after it was finished.
    scene.stop_daemon().await;
    scene.drop_slots().await;
    scene.spawn_daemon();
    let again = "SELECT init_started_at > init_finished_at AND init_progress < 100 FROM jobs";
    scene.wait_for(again, "true").await;
    scene.wait_for_backfill().await;
}

/// A job that fails shows its reason, and no interruption any more.
#[tokio::test]
async fn a_failure_replaces_the_last_interruption() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ADD last_error TEXT, ADD last_error_at TIMESTAMP, ADD batch_size INT; UPDATE jobs SET \
        last_error = 'old', last_error_at = now()")
        .await;
    scene.start_daemon().await;
    scene
        .wait_for("SELECT last_error IS NULL FROM jobs", "true")
        .await;
    scene
        .sql("UPDATE jobs SET last_error = 'old', last_error_at = now(), batch_size = 0")
        .await;
    let id: i32 = value(&scene.client, "SELECT id FROM jobs").await;
    wait_for_failure(&scene.client, id).await;
    wait_for_value(
        &scene.client,
        "SELECT last_error IS NULL AND last_error_at IS NULL FROM jobs",
        true,
    )
    .await;
}
