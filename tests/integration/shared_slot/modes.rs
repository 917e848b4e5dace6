//! Switching from one slot for each job to one for all, and back.

use testkit::jobs::wait_for_failure;
use testkit::scene::DESERT;

use super::*;
use crate::support::{scene_with, start_daemon};

#[tokio::test]
async fn switching_over_and_back_leaves_no_slot_behind_and_loses_nothing() {
    let mut scene = five_jobs().await;
    put(&scene, 1, TIDES).await;
    scene.spawn_daemon();
    scene.wait_for(SLOTS, "5 slot, 5 read").await;
    wait_for_all_vectors(&scene).await;
    for (text, shared) in [(NEW_TEXT, true), (DESERT, false), (MOON, true)] {
        scene.stop_daemon().await;
        put(&scene, 1, text).await;
        scene.sql("UPDATE pair SET title = NULL WHERE id = 1").await;
        match shared {
            true => scene.spawn_daemon_with(SHARED),
            false => scene.spawn_daemon(),
        };
        wait_for_all_vectors(&scene).await;
        let (slots, publications) = match shared {
            true => ("1 slot, 1 read", "1"),
            false => ("5 slot, 5 read", "5"),
        };
        scene.wait_for(SLOTS, slots).await;
        scene
            .wait_for("SELECT count(*) FROM pg_publication", publications)
            .await;
        put(&scene, 2, text).await;
        wait_for_all_vectors(&scene).await;
    }
    assert_eq!(scene.failures().await, "");
}

/// A publication that a table's owner has prepared belongs to one job. A role that may not create a publication gets
/// the statement that grants it.
#[tokio::test]
async fn a_prepared_publication_cannot_be_shared() {
    let scene = scene_with(TABLES).await;
    scene
        .sql(
            "CREATE ROLE lantern_shared_tester LOGIN REPLICATION PASSWORD 'secret';
             GRANT USAGE ON SCHEMA public TO lantern_shared_tester;
             GRANT SELECT, UPDATE ON plain TO lantern_shared_tester;
             CREATE PUBLICATION lantern_prepared_plain FOR TABLE plain WITH (publish = 'insert, update')",
        )
        .await;
    let id = scene.job("plain", "body").await;
    let update = "UPDATE jobs SET db_connection = regexp_replace(db_connection, '//[^@]*@', '//lantern_shared_tester:secret@')";
    scene.sql(update).await;
    let daemon = start_daemon(&scene.database, SHARED);
    let reason = wait_for_failure(&scene.client, id).await;
    assert!(
        reason.contains("GRANT CREATE ON DATABASE") && reason.contains("--slots job"),
        "{reason}"
    );
    drop(daemon);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    scene.wait_for(slots, "0").await;
    scene
        .sql("DROP OWNED BY lantern_shared_tester; DROP ROLE lantern_shared_tester")
        .await;
}
