//! The fingerprint column: what it holds and which work it saves. And jobs that trust existing vectors.

use testkit::Scene;
use testkit::client::execute;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use crate::support::scene_with;

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, embedding vector(384))";

/// Whether rows have a fingerprint and a vector exactly where they have a text.
const MARKED: &str = "SELECT bool_and((mark IS NULL) = (COALESCE(body, '') = '') AND (mark IS NULL) = (embedding IS NULL)) FROM notes";

async fn scene() -> Scene {
    let scene = scene_with(NOTES).await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN fingerprint_column text, ADD COLUMN trust_existing bool, ADD COLUMN backfill bool")
        .await;
    scene.job("notes", "body").await;
    scene
        .sql("UPDATE jobs SET fingerprint_column = 'mark'")
        .await;
    scene
}

#[tokio::test]
async fn the_fingerprint_is_written_and_cleared_with_the_vector() {
    let mut scene = scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene
        .sql("INSERT INTO notes (id, body) VALUES (3, NULL), (4, '')")
        .await;
    scene.start_daemon().await;
    assert_eq!(scene.value(MARKED).await, "true");
    scene.put(5, CAVES).await;
    scene.put(1, DESERT).await;
    scene.sql("UPDATE notes SET body = NULL WHERE id = 2").await;
    scene.caught_up().await;
    assert_eq!(scene.value(MARKED).await, "true");

    // Equal texts have equal fingerprints, others have others.
    scene.put(6, CAVES).await;
    scene.caught_up().await;
    let kinds = "SELECT count(DISTINCT body) || ' ' || count(DISTINCT mark) || ' ' || count(DISTINCT (body, mark)) FROM notes WHERE body <> ''";
    assert_eq!(scene.value(kinds).await, "2 2 2");
}

/// Hazard 4: after a restart the daemon remembers no texts, but the rows do.
#[tokio::test]
async fn an_update_of_another_column_writes_nothing_after_a_restart() {
    let mut scene = scene().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.start_daemon().await;
    scene
        .sql("UPDATE notes SET views = views + 1; UPDATE notes SET id = 30 WHERE id = 3")
        .await;
    let versions = scene.row_versions().await;
    scene.put(4, DESERT).await;
    scene.caught_up().await;
    scene.sql("DELETE FROM notes WHERE id = 4").await;
    assert_eq!(
        scene.row_versions().await,
        versions,
        "rows were written again"
    );
}

/// Hazard 16.
#[tokio::test]
async fn after_a_lost_slot_only_rows_that_need_it_are_embedded() {
    let mut scene = scene().await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.drop_slots().await;
    scene.put(2, DESERT).await;
    scene.sql("UPDATE notes SET body = '' WHERE id = 3; UPDATE notes SET embedding = NULL WHERE id = 4").await;
    let versions = scene.row_versions().await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.value(MARKED).await, "true");
    let after = scene.row_versions().await;
    let same: Vec<bool> = versions
        .split(' ')
        .zip(after.split(' '))
        .map(|(a, b)| a == b)
        .collect();
    assert_eq!(same, [true, false, false, false], "{versions} -> {after}");
}

/// Hazard 19. The first row of a large transaction is locked, so that none of it can be confirmed while the others are
/// written; after a crash the stream repeats it all.
#[tokio::test]
async fn rows_already_written_of_a_repeated_transaction_are_not_embedded_again() {
    let mut scene = scene().await;
    scene.start_daemon().await;
    let insert = "INSERT INTO notes (id, body) SELECT row_number() OVER (), body FROM truth, generate_series(1, 4)";
    let locking = scene.database.client().await;
    scene.stop_daemon().await;
    scene.sql(insert).await;
    let lock = "BEGIN; SELECT FROM notes WHERE id = 1 FOR UPDATE";
    execute(&locking, lock).await;
    scene.start_daemon().await;
    scene
        .wait_for("SELECT count(embedding) FROM notes", "23")
        .await;
    scene.kill_daemon();
    let versions = scene.row_versions().await;
    execute(&locking, "COMMIT").await;
    scene.start_daemon().await;
    scene.put(100, TIDES).await;
    scene.caught_up().await;
    let after = scene.row_versions().await;
    let again = versions
        .split(' ')
        .zip(after.split(' '))
        .filter(|(a, b)| a != b)
        .count();
    assert_eq!(
        again, 1,
        "only the locked row was left: {versions} -> {after}"
    );
}

#[tokio::test]
async fn a_fingerprint_column_of_another_type_is_rejected() {
    let scene = &mut scene().await;
    scene
        .sql("UPDATE jobs SET fingerprint_column = 'views'")
        .await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("\"views\" (fingerprint_column)") && reason.contains("uuid"),
        "{reason}"
    );
    scene
        .sql("UPDATE jobs SET fingerprint_column = 'mark'")
        .await;
    scene.wait_for_backfill().await;
}

/// An unverified vector is not kept: it may belong to an older text.
#[tokio::test]
async fn vectors_found_by_a_new_job_are_kept_only_if_it_trusts_them() {
    for (marked, trusting) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut scene = scene().await;
        scene.write(&[TIDES, MOON]).await;
        scene
            .sql("UPDATE notes SET embedding = (SELECT vector FROM truth WHERE body LIKE 'Desert%') WHERE id = 1")
            .await;
        if !marked {
            scene.sql("UPDATE jobs SET fingerprint_column = NULL").await;
        }
        scene
            .sql(&format!("UPDATE jobs SET trust_existing = {trusting}"))
            .await;
        scene.start_daemon().await;
        let wrong = scene.wrong_vectors("notes", "body").await;
        assert_eq!(!wrong.is_empty(), trusting, "marked: {marked}: {wrong}");
        let found = "SELECT embedding = (SELECT vector FROM truth WHERE body LIKE 'Desert%') FROM notes WHERE id = 1";
        assert_eq!(scene.value(found).await, trusting.to_string());
    }
}

#[tokio::test]
async fn without_backfill_only_rows_that_change_are_embedded() {
    let mut scene = scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene
        .sql("UPDATE jobs SET fingerprint_column = NULL, backfill = false")
        .await;
    scene.start_daemon().await;
    scene.put(2, CAVES).await;
    scene.put(3, DESERT).await;
    scene.wait_until_confirmed().await;
    assert_eq!(scene.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM notes WHERE embedding IS NOT NULL").await, "2,3");
}

/// Trust applies to the initial backfill alone: when changes may have been missed, such a vector is unverified like any
/// other.
#[tokio::test]
async fn vectors_trusted_by_the_initial_backfill_are_not_trusted_after_a_lost_slot() {
    for marked in [false, true] {
        let mut scene = scene().await;
        scene.write(&[TIDES, MOON]).await;
        scene
            .sql("UPDATE notes n SET embedding = t.vector FROM truth t WHERE t.body = n.body AND n.id = 1")
            .await;
        if !marked {
            scene.sql("UPDATE jobs SET fingerprint_column = NULL").await;
        }
        scene.sql("UPDATE jobs SET trust_existing = true").await;
        let trusted = "SELECT xmin FROM notes WHERE id = 1";
        let version = scene.value(trusted).await;
        scene.start_daemon().await;
        assert_eq!(scene.value(trusted).await, version, "it was trusted");
        scene.stop_daemon().await;
        scene.write(&[CAVES, DESERT]).await;
        scene.drop_slots().await;
        scene.start_daemon().await;
        assert_eq!(
            scene.wrong_vectors("notes", "body").await,
            "",
            "marked: {marked}"
        );
    }
}
