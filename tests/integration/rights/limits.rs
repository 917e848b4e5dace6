//! Rows of the jobs table that are too many, too long, or without a key.

use testkit::Scene;
use testkit::client::value;
use testkit::jobs::{wait_for_backfill, wait_for_failure};
use testkit::scene::{MOON, NOTES, TIDES};
use testkit::wait::{TIMEOUT, wait_until};

use crate::support::{notes_scene, scene_with};

/// What a process holds in memory, in MB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|number| number.parse::<u64>().ok())
        .expect("a number")
        >> 10
}

/// Inserts a job like the first one, with another destination and with these values.
async fn job_with(scene: &Scene, set: &str) -> i32 {
    let columns = "db_connection, schema, \"table\", src_column, embedding_model";
    // Statements that are sent together are one transaction.
    scene
        .sql(&format!(
            "INSERT INTO jobs (dst_column, {columns}) SELECT 'other', {columns} FROM jobs WHERE id = 1; \
             UPDATE jobs SET {set} WHERE id = (SELECT max(id) FROM jobs)"
        ))
        .await;
    value(&scene.client, "SELECT max(id) FROM jobs").await
}

#[tokio::test]
async fn a_long_value_fails_its_own_job_and_is_not_read() {
    let mut scene = notes_scene().await;
    scene
        .sql(
            "ALTER TABLE jobs ADD pk text; ALTER TABLE jobs ADD runtime_params jsonb; \
             ALTER TABLE jobs ALTER pk SET STORAGE EXTERNAL, ALTER db_connection SET STORAGE EXTERNAL",
        )
        .await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    let process = scene.daemon().id();
    let before = memory(process);
    let columns = [
        ("pk", "repeat('x', 60000000)"),
        ("db_connection", "repeat('y', 60000000)"),
        ("embedding_model", "repeat('z', 16385)"),
        (
            "runtime_params",
            "jsonb_build_object('a', repeat('w', 20000000))",
        ),
        ("schema", "repeat('é', 8193)"),
    ];
    for (column, long) in columns {
        let job = job_with(&scene, &format!("{column} = {long}")).await;
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(
            reason.contains(&format!("{column}: longer than 16 kB")),
            "{reason}"
        );
    }
    // The others go on.
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
    let grown = memory(process).saturating_sub(before);
    assert!(grown < 40, "{grown} MB more, after {before} MB");
    let log = scene.daemon().log();
    assert!(
        !log.contains("does not answer") && !log.contains(&"x".repeat(100)),
        "{log}"
    );
}

/// One such row must not keep the others from being read.
#[tokio::test]
async fn a_value_that_is_none_of_its_options_type_fails_its_own_job() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ADD batch_size text; ALTER TABLE jobs ADD backfill text")
        .await;
    for (set, said) in [
        (
            "batch_size = 'many'",
            "batch_size is 'many', which is no whole number",
        ),
        (
            "batch_size = '99999999999999999999'",
            "which is no whole number",
        ),
        (
            "backfill = 'perhaps'",
            "backfill is 'perhaps', which is neither true nor false",
        ),
    ] {
        let job = job_with(&scene, set).await;
        if scene.leftovers().await == "0 publications, 0 slots" {
            scene.spawn_daemon();
        }
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
    }
    scene.write(&[TIDES]).await;
    scene.wait_for_vectors("notes", "body").await;
}

#[tokio::test]
async fn a_table_that_is_too_large_is_told_and_jobs_that_run_go_on() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene
        .sql(
            "INSERT INTO jobs (db_connection, canceled_at, src_column) \
             SELECT repeat('x', 16000), true, repeat('y', 16000) FROM generate_series(1, 2200)",
        )
        .await;
    scene
        .daemon()
        .wait_for_line("the answer has more than 32 MB", TIMEOUT)
        .await;
    scene.write(&[TIDES]).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.sql("DELETE FROM jobs WHERE canceled_at").await;
    let late = "CREATE TABLE late (id int PRIMARY KEY, body text, embedding vector(384))";
    scene.sql(late).await;
    let job = scene.job("late", "body").await;
    wait_for_backfill(&scene.client, job).await;
}

#[tokio::test]
async fn rows_without_an_id_are_skipped_and_the_statement_for_a_key_is_named() {
    let mut scene = notes_scene().await;
    scene
        .sql(
            "ALTER TABLE jobs DROP CONSTRAINT jobs_pkey, ALTER id DROP NOT NULL, ALTER id TYPE text; \
             INSERT INTO jobs SELECT * FROM jobs; UPDATE jobs SET id = NULL WHERE ctid = (SELECT max(ctid) FROM jobs); \
             INSERT INTO jobs (id, db_connection) VALUES (repeat('i', 2000), 'x'), ('', 'x')",
        )
        .await;
    scene.write(&[TIDES]).await;
    scene.spawn_daemon();
    scene.wait_for_vectors("notes", "body").await;
    let line = scene.daemon().wait_for_line("are skipped", TIMEOUT).await;
    for part in ["2 have no id", "ADD PRIMARY KEY (id);"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(scene.daemon().log().matches("are skipped").count(), 1);
    assert!(scene.daemon().exit_status().is_none());
}

/// A role that may insert rows could else take the job of another one over.
#[tokio::test]
async fn of_rows_with_one_id_none_starts_and_the_one_that_runs_goes_on() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs DROP CONSTRAINT jobs_pkey")
        .await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene
        .sql(
            "INSERT INTO jobs (id, db_connection, schema, \"table\", src_column, dst_column, embedding_model, canceled_at) \
             SELECT id, 'postgresql://elsewhere/d', schema, \"table\", src_column, dst_column, embedding_model, true FROM jobs",
        )
        .await;
    scene
        .daemon()
        .wait_for_line("1 ids are of several rows", TIMEOUT)
        .await;
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
    let (status, error) = {
        let uri = scene.database.uri();
        let output = crate::support::program()
            .run(&["verify", "--uri", &uri, "--job", "1"])
            .await;
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(status, Some(1));
    assert!(
        error.contains("2 rows of") && error.contains("primary key"),
        "{error}"
    );

    scene.stop_daemon().await;
    let slots = scene.leftovers().await;
    scene.spawn_daemon();
    scene
        .daemon()
        .wait_for_line("1 ids are of several rows", TIMEOUT)
        .await;
    assert_eq!(scene.leftovers().await, slots);
    scene.sql("DELETE FROM jobs WHERE canceled_at").await;
    scene.put(3, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
}

#[tokio::test]
async fn jobs_beyond_max_jobs_wait_until_others_end() {
    let tables = format!(
        "{NOTES}; CREATE TABLE second (id int PRIMARY KEY, body text, embedding vector(384)); \
         CREATE TABLE third (LIKE second INCLUDING ALL); ALTER TABLE jobs ADD waits_for text"
    );
    let mut scene = scene_with(&tables).await;
    let first = scene.job("notes", "body").await;
    scene.spawn_daemon_with(&["--max-jobs", "1"]);
    wait_for_backfill(&scene.client, first).await;
    let second = scene.job("second", "body").await;
    let third = scene.job("third", "body").await;
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE waits_for LIKE '%--max-jobs 1%'",
            "2",
        )
        .await;
    let line = scene.daemon().wait_for_line("(--max-jobs)", TIMEOUT).await;
    assert!(line.contains("until others end"), "{line}");
    let started =
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM jobs WHERE init_started_at IS NOT NULL";
    assert_eq!(scene.value(started).await, first.to_string());

    // One that does not want to run any more waits no longer.
    scene
        .sql(&format!(
            "UPDATE jobs SET canceled_at = true WHERE id IN ({first}, {third})"
        ))
        .await;
    wait_for_backfill(&scene.client, second).await;
    scene
        .wait_for("SELECT count(*) FROM jobs WHERE waits_for IS NOT NULL", "0")
        .await;
    assert_eq!(scene.value(started).await, format!("{first} {second}"));
    wait_until("few lines", TIMEOUT, async || {
        let count = scene.value("SELECT count(*) FROM jobs").await;
        if count == "3" { Ok(()) } else { Err(count) }
    })
    .await;
    assert!(scene.daemon().log().matches("until others end").count() <= 2);
    assert_eq!(
        value::<i64>(&scene.client, "SELECT count(*) FROM second").await,
        0
    );
}
