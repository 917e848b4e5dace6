//! Tables that change under a running job, and rows that the server rejects.

use std::time::Duration;

use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};

use super::held_write_back::HeldWriteBack;
use crate::support::{notes_scene, scene_with};

/// Waits until the user's updates work again, without any intervention.
async fn updates_work(scene: &Scene) {
    wait_until("updates work", TIMEOUT, async || {
        scene
            .client
            .batch_execute("UPDATE notes SET views = views + 1")
            .await
    })
    .await;
    scene.wait_for_cleanup().await;
}

/// Hazard 7.
#[tokio::test]
async fn a_dropped_primary_key_fails_the_job_and_frees_the_table() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON]).await;
    scene.caught_up().await;
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey")
        .await;
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("the key (\"id\") of \"public\".\"notes\""),
        "{reason}"
    );
    updates_work(&scene).await;

    scene.sql("ALTER TABLE notes ADD PRIMARY KEY (id)").await;
    scene.put(2, CAVES).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 7. With a column list, that is from PostgreSQL 15 on, even FULL makes updates fail.
#[tokio::test]
async fn a_changed_replica_identity_fails_the_job_and_frees_the_table() {
    for identity in ["NOTHING", "FULL"] {
        let mut scene = notes_scene().await;
        scene.put(1, TIDES).await;
        scene.start_daemon().await;
        scene
            .sql(&format!("ALTER TABLE notes REPLICA IDENTITY {identity}"))
            .await;
        let reason = scene.wait_for_failure().await;
        let named = format!("\"notes\" has REPLICA IDENTITY {identity} now");
        assert!(reason.contains(&named), "{reason}");
        assert!(reason.contains("REPLICA IDENTITY DEFAULT;"), "{reason}");
        updates_work(&scene).await;
    }
}

/// Hazard 8. FULL may be intended: then the job runs with it, without a column list.
#[tokio::test]
async fn a_failed_job_continues_with_replica_identity_full_when_it_is_retried() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.sql("ALTER TABLE notes REPLICA IDENTITY FULL").await;
    scene.wait_for_failure().await;
    updates_work(&scene).await;
    scene.put(1, CAVES).await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_backfill().await;
    scene.caught_up().await;
    scene.sql("UPDATE notes SET id = id + 5").await;
    scene.put(6, DESERT).await;
    scene.caught_up().await;
}

/// Hazard 8. The reverse is harmless: the publication has no column list.
#[tokio::test]
async fn a_table_that_leaves_replica_identity_full_is_still_followed() {
    let mut scene = notes_scene().await;
    scene.sql("ALTER TABLE notes REPLICA IDENTITY FULL").await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE notes REPLICA IDENTITY DEFAULT")
        .await;
    // The watchdog polls once a second. The test is that it reports nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.sql("UPDATE notes SET id = id + 5").await;
    scene.put(6, CAVES).await;
    scene.caught_up().await;
    assert_eq!(
        scene.value("SELECT init_failure_reason FROM jobs").await,
        ""
    );
}

/// Hazard 7, while no daemon runs: the next one sees it.
#[tokio::test]
async fn a_key_dropped_while_the_daemon_is_stopped_is_noticed_at_its_start() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey")
        .await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("ADD PRIMARY KEY (id)"), "{reason}");
    updates_work(&scene).await;
}

/// Hazard 12. The other job continues. The failed one names the remedy, and continues after it.
#[tokio::test]
async fn a_renamed_source_column_fails_only_its_own_job() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384)); \
                  CREATE TABLE others (id int PRIMARY KEY, body text, embedding vector(384))";
    let mut scene = scene_with(tables).await;
    let job = scene.job("notes", "body").await;
    scene.job("others", "body").await;
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE notes RENAME COLUMN body TO words")
        .await;
    for table in ["notes", "others"] {
        let insert = format!("INSERT INTO {table} VALUES (1, $1)");
        scene.execute(&insert, &[&TIDES]).await;
    }
    scene.wait_for_vectors("others", "body").await;
    let reason = format!(
        "SELECT init_failure_reason LIKE '%column \"body\" (src_column)%' FROM jobs WHERE id = {job}"
    );
    scene.wait_for(&reason, "true").await;
    let failed = "SELECT string_agg(id::text, ',') FROM jobs WHERE init_failed_at IS NOT NULL";
    assert_eq!(scene.value(failed).await, job.to_string());
    scene
        .sql(&format!(
            "UPDATE jobs SET src_column = 'words' WHERE id = {job}"
        ))
        .await;
    scene.wait_for_vectors("notes", "words").await;
}

/// Hazard 12.
#[tokio::test]
async fn a_dropped_column_fails_the_job_with_its_name() {
    for column in ["body", "embedding"] {
        let mut scene = notes_scene().await;
        scene.start_daemon().await;
        scene
            .sql(&format!("ALTER TABLE notes DROP COLUMN {column} CASCADE"))
            .await;
        let column_left = if column == "body" { "views" } else { "body" };
        scene
            .sql(&format!(
                "INSERT INTO notes (id, {column_left}) VALUES (1, '5')"
            ))
            .await;
        let reason = scene.wait_for_failure().await;
        assert!(
            reason.contains(column) && reason.contains("notes"),
            "{reason}"
        );
        scene
            .wait_for("SELECT count(*) FROM pg_publication", "0")
            .await;
    }
}

/// Hazard 24. The failures table names the rows by their keys, and the others of the batch are written. A first
/// write-back waits in a trigger until all of them are ready for one batch.
#[tokio::test]
async fn rows_that_violate_a_check_are_noted_and_the_others_of_their_batch_are_written() {
    let mut scene = notes_scene().await;
    let insert = "INSERT INTO notes (id, body) SELECT row_number() OVER (), body FROM truth, generate_series(1, 3)";
    scene.sql(insert).await;
    scene.start_daemon().await;
    scene.sql("ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NOT NULL OR id NOT IN (3, 11)) NOT VALID").await;
    let held = HeldWriteBack::begin(&scene).await;
    // Texts that are gone need no embedding: as soon as the change is streamed, its rows are ready.
    scene
        .sql("UPDATE notes SET body = NULL WHERE id < 99")
        .await;
    let sent = format!(
        "SELECT bool_and(sent_lsn >= '{}') FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid \
         WHERE database = current_database()",
        scene.wal_end().await
    );
    scene.wait_for(&sent, "true").await;
    // Nothing in SQL shows when the daemon has gathered the rows behind the write-back that waits; were it slower, the
    // batches would only be smaller.
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.release().await;

    let what = "format('%s %s', key->>'id', error LIKE '%\"keeps\"%')";
    scene.wait_for_failed_rows(what, "3 t, 11 t").await;
    let refused = "SELECT string_agg(id::text, ',' ORDER BY id) FROM notes WHERE body IS NULL AND embedding IS NOT NULL";
    scene.wait_for(refused, "3,11").await;
    scene.wait_until_confirmed().await;
}
