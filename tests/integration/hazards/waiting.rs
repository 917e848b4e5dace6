//! A slot whose creation has to wait for a transaction: the daemon reports which one.

use std::time::Duration;

use testkit::client::execute;
use testkit::scene::{MOON, TIDES};

use crate::support::notes_scene;

/// Hazard 15.
#[tokio::test]
async fn the_log_and_the_job_say_what_a_new_slot_waits_for() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN waits_for text")
        .await;
    let write = "SET application_name = 'the long report'; BEGIN; CREATE TABLE unrelated AS SELECT 'a secret of somebody' AS s";
    let writer = scene.session(write).await;
    let pid: i32 = writer
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .expect("an answer")
        .get(0);
    let log = scene.spawn_daemon();
    let said =
        format!("process {pid} of postgres (the long report), idle in transaction, open for ");
    log.wait_for_line(&said, Duration::from_secs(60)).await;
    assert!(!log.log().contains("a secret of somebody"));
    let row = format!("SELECT waits_for LIKE '%{said}%' FROM jobs");
    scene.wait_for(&row, "true").await;

    execute(&writer, "COMMIT").await;
    scene.put(1, TIDES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene
        .wait_for("SELECT waits_for IS NULL FROM jobs", "true")
        .await;
}

/// Hazard 15. The daemon stops during slot creation; the next one creates the slot.
#[tokio::test]
async fn a_slot_whose_creation_was_interrupted_is_created_by_the_next_daemon() {
    let mut scene = notes_scene().await;
    let writer = scene.session("BEGIN; CREATE TABLE unrelated (n int)").await;
    scene.spawn_daemon();
    let creating = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    scene.wait_for(creating, "1").await;
    scene.stop_daemon().await;
    scene.spawn_daemon();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'lantern-cli: job 1 set-up' \
                   AND wait_event_type = 'Lock' AND query LIKE '%pg_create_logical_replication_slot%'";
    scene.wait_for(waiting, "1").await;
    execute(&writer, "COMMIT").await;
    scene.wait_for_backfill().await;
    assert_eq!(scene.leftovers().await, "1 publications, 1 slots");
    scene.put(1, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 15. A job that is canceled while it waits no longer waits.
#[tokio::test]
async fn waits_for_is_cleared_when_a_waiting_job_is_canceled() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN waits_for text")
        .await;
    let writer = scene.session("BEGIN; CREATE TABLE unrelated (n int)").await;
    scene.spawn_daemon();
    scene
        .wait_for("SELECT waits_for IS NOT NULL FROM jobs", "true")
        .await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    scene
        .wait_for("SELECT waits_for IS NULL FROM jobs", "true")
        .await;
    execute(&writer, "COMMIT").await;
}
