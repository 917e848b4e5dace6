//! Builds of an index that something comes between. A transaction that holds the table keeps each build in its first
//! phase for as long as the test needs.

use testkit::client::execute;
use testkit::jobs::{Job, insert_job, wait_for_backfill};
use testkit::scene::{MOON, NOTES, TIDES};
use testkit::{Scene, wait};
use tokio_postgres::Client;

use crate::search::create_index::{INDEXES, NAME, READY, STATE, indexed_notes};

/// A scene in which the build waits for the returned session.
async fn waiting_build() -> Option<(Scene, Client)> {
    let tables = format!("{NOTES}; ALTER TABLE notes ADD more real[]");
    let mut scene = indexed_notes(&tables).await?;
    scene.write(&[TIDES, MOON]).await;
    let writer = scene
        .session("BEGIN; LOCK TABLE notes IN ROW EXCLUSIVE MODE")
        .await;
    scene.start_daemon().await;
    wait_for_build(&scene).await;
    Some((scene, writer))
}

async fn wait_for_build(scene: &Scene) {
    let waits = "SELECT index_state LIKE 'building %: waiting for writers before build%process %' FROM jobs";
    scene.wait_for(waits, "true").await;
}

/// The indexes of pgvector, valid or not.
const ALL: &str =
    "SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw'";

/// The sessions that build an index.
const BUILDERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'";

#[tokio::test]
async fn rows_go_on_while_a_build_waits_for_a_transaction() {
    let Some((scene, writer)) = waiting_build().await else {
        return;
    };
    scene.put(3, TIDES).await;
    scene.put(1, MOON).await;
    scene.caught_up().await;
    execute(&writer, "COMMIT").await;
    scene.wait_for(STATE, READY).await;
    assert_eq!(scene.value(INDEXES).await, NAME);
}

/// Hazard 57.
#[tokio::test]
async fn a_build_gives_way_to_a_statement_that_needs_the_table() {
    let Some((mut scene, writer)) = waiting_build().await else {
        return;
    };
    let altering = scene.session("").await;
    let altered = tokio::spawn(async move {
        execute(&altering, "ALTER TABLE notes ADD COLUMN other int").await;
    });
    let said = scene
        .daemon()
        .wait_for_line("gave way, because others wait for a lock", wait::TIMEOUT)
        .await;
    assert!(said.contains("trying again in"), "{said}");
    execute(&writer, "COMMIT").await;
    altered.await.expect("the table is altered");
    scene.wait_for(STATE, READY).await;
    assert_eq!(scene.value(ALL).await, "1");
}

/// Hazard 57. Publishing a table takes a lock that a build holds, and is tried with a short `lock_timeout`.
#[tokio::test]
async fn another_job_of_the_table_starts_during_a_build() {
    let Some((scene, writer)) = waiting_build().await else {
        return;
    };
    let job = Job::on(&scene.database, "notes", "views", "more");
    let job = insert_job(&scene.client, job).await;
    wait_for_backfill(&scene.client, job).await;
    execute(&writer, "COMMIT").await;
    let first = format!("{STATE} WHERE id <> {job}");
    scene.wait_for(&first, READY).await;
}

/// Hazard 57.
#[tokio::test]
async fn a_build_that_was_killed_with_its_daemon_is_replaced() {
    let Some((mut scene, writer)) = waiting_build().await else {
        return;
    };
    scene.kill_daemon();
    // The server notices that the client is gone, and leaves an invalid index.
    scene.wait_for(BUILDERS, "0").await;
    assert_eq!(scene.value(ALL).await, "1");
    assert_eq!(scene.value(INDEXES).await, "");
    scene.start_daemon().await;
    scene
        .daemon()
        .wait_for_line("its build was interrupted", wait::TIMEOUT)
        .await;
    execute(&writer, "COMMIT").await;
    scene.wait_for(STATE, READY).await;
    assert_eq!(scene.value(ALL).await, "1");
    assert_eq!(scene.value(INDEXES).await, NAME);
}

#[tokio::test]
async fn a_canceled_job_leaves_no_half_index_and_a_whole_one() {
    let Some((mut scene, writer)) = waiting_build().await else {
        return;
    };
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for(BUILDERS, "0").await;
    execute(&writer, "COMMIT").await;
    scene.wait_for(ALL, "0").await;
    scene.wait_for_cleanup().await;
    scene.sql("UPDATE jobs SET canceled_at = false").await;
    scene.wait_for(STATE, READY).await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    scene.stop_daemon().await;
    assert_eq!(scene.value(INDEXES).await, NAME);
}

#[tokio::test]
async fn an_option_that_is_dropped_during_the_build_leaves_no_half_index() {
    let Some((scene, writer)) = waiting_build().await else {
        return;
    };
    scene.sql("UPDATE jobs SET create_index = NULL").await;
    scene.wait_for(BUILDERS, "0").await;
    execute(&writer, "COMMIT").await;
    scene.wait_for(ALL, "0").await;
    scene.put(3, TIDES).await;
    scene.caught_up().await;
}

#[tokio::test]
async fn a_build_that_fails_does_not_fail_the_job() {
    let Some(mut scene) = indexed_notes(NOTES).await else {
        return;
    };
    scene.sql(&format!("CREATE TABLE {NAME} (id int)")).await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    let taken =
        "SELECT index_state LIKE 'not built: the name %is taken by something else%' FROM jobs";
    scene.wait_for(taken, "true").await;
    scene.put(2, MOON).await;
    scene.caught_up().await;
    assert_eq!(scene.failures().await, "");
    scene.sql(&format!("DROP TABLE {NAME}")).await;
    scene.wait_for(STATE, READY).await;
}
