//! Rows that cannot be written: they are noted in the failures table, do not stop the stream, and are removed once they
//! are written.

use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use crate::support::notes_scene;

/// A job on `notes`, whose row 2 violates a check once it has a vector.
async fn scene_with_check() -> Scene {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 2)")
        .await;
    scene
}

#[tokio::test]
async fn the_stream_continues_past_a_rejected_row() {
    let mut scene = scene_with_check().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.wait_until_confirmed().await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    let noted = "SELECT format('%s %s %s', job_id = (SELECT id::text FROM jobs), attempts, error LIKE '%\"keeps\"%') FROM jobs_failures";
    assert_eq!(scene.value(noted).await, "t 1 t");
    assert_eq!(scene.value("SELECT count(embedding) FROM notes").await, "2");
    assert_eq!(
        scene.value("SELECT init_failed_at IS NULL FROM jobs").await,
        "true"
    );

    // It survives a restart and another text, and the attempts are counted.
    scene.stop_daemon().await;
    scene.start_daemon().await;
    scene.put(2, DESERT).await;
    scene
        .wait_for("SELECT attempts FROM jobs_failures", "2")
        .await;
    scene.put(4, TIDES).await;
    scene
        .wait_for("SELECT count(embedding) FROM notes", "3")
        .await;
}

#[tokio::test]
async fn a_failed_row_is_removed_from_the_failures_table_once_it_is_written() {
    let mut scene = scene_with_check().await;
    scene.write(&[TIDES, MOON]).await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene.kill_daemon();
    scene.start_daemon().await;
    scene.sql("ALTER TABLE notes DROP CONSTRAINT keeps").await;
    scene.put(2, CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_failed_rows("key->>'id'", "").await;
}

/// A trigger raises an error that is usually transient: the batch with the row is retried as a whole, then in halves.
#[tokio::test]
async fn a_row_with_a_persistent_transient_error_does_not_hold_up_others() {
    let mut scene = notes_scene().await;
    scene
        .sql(
            "CREATE FUNCTION deadlock() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'always' USING ERRCODE = 'deadlock_detected'; END $$; \
             CREATE TRIGGER deadlocks BEFORE UPDATE OF embedding ON notes FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION deadlock()",
        )
        .await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    assert_eq!(scene.value("SELECT count(embedding) FROM notes").await, "2");
    assert_eq!(
        scene.value("SELECT attempts > 1 FROM jobs_failures").await,
        "true"
    );
}

#[tokio::test]
async fn a_job_fails_when_every_row_is_rejected() {
    let mut scene = notes_scene().await;
    scene
        .sql(
            "INSERT INTO notes (id, body, embedding) SELECT n, NULL, (SELECT vector FROM truth LIMIT 1) FROM generate_series(1, 1100) n; \
             ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NOT NULL)",
        )
        .await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("1000 rows") && reason.contains("\"keeps\""),
        "{reason}"
    );
    // The failures table outlives the rest of the job, so that a person can read the reasons. The job's lock is free.
    scene.wait_for_cleanup().await;
    let locks = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' \
                 AND l.objsubid = 1 AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs'";
    scene.wait_for(locks, "0").await;
    assert_eq!(
        scene
            .value("SELECT count(*) BETWEEN 1 AND 1000 FROM jobs_failures")
            .await,
        "true"
    );
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT keeps; UPDATE jobs SET init_failed_at = NULL")
        .await;
    scene.wait_for_backfill().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_failed_rows("key->>'id'", "").await;
}

#[tokio::test]
async fn a_canceled_job_leaves_no_failures() {
    let mut scene = scene_with_check().await;
    scene.write(&[TIDES, MOON]).await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_failed_rows("key->>'id'", "").await;
    scene.wait_for_cleanup().await;
    let _ = scene.daemon();
}

#[tokio::test]
async fn a_job_that_is_deleted_while_no_daemon_runs_leaves_no_failures() {
    let mut scene = scene_with_check().await;
    scene.write(&[TIDES, MOON]).await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene.kill_daemon();
    scene.sql("DELETE FROM jobs").await;
    scene.start_daemon().await;
    scene.wait_for_failed_rows("key->>'id'", "").await;
    scene.wait_for_cleanup().await;
}

/// The failed rows belong to the old definition: the new job may never read them.
#[tokio::test]
async fn a_job_with_a_new_definition_leaves_no_failed_rows() {
    let mut scene = scene_with_check().await;
    scene.write(&[TIDES, MOON]).await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene
        .sql(&format!(
            "CREATE TABLE other (LIKE notes INCLUDING ALL); INSERT INTO other (id, body) VALUES (1, '{CAVES}'); \
             UPDATE jobs SET \"table\" = 'other'"
        ))
        .await;
    scene.wait_for_vectors("other", "body").await;
    scene.wait_for_failed_rows("key->>'id'", "").await;
    let _ = scene.daemon();
}

/// Where the table cannot be created, the job stops rather than lose the row.
#[tokio::test]
async fn without_a_failures_table_the_job_fails_and_says_which_row() {
    let mut scene = scene_with_check().await;
    scene
        .sql("CREATE TABLE jobs_failures (something int)")
        .await;
    scene.write(&[TIDES, MOON]).await;
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("row (2)") && reason.contains("jobs_failures"),
        "{reason}"
    );
    let _ = scene.daemon();
}
