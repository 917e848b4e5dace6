//! Publications, slots and positions, over stops and crashes.

use super::{CAVES, DESERT, MOON, Scene, TIDES, VOCABULARY};

const DROP_SLOT: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                         WHERE database = current_database()";
const DROP_PUBLICATION: &str = "DO $$ BEGIN EXECUTE (SELECT format('DROP PUBLICATION %I', pubname) FROM pg_publication); END $$";

/// Changes that a stream from the old position would not bring, all with a vector of the text before.
async fn change_everything(scene: &Scene) {
    scene
        .sql("UPDATE notes SET body = NULL WHERE id = 2; UPDATE notes SET id = 30 WHERE id = 3")
        .await;
    scene.put(1, DESERT).await;
    scene.put(4, DESERT).await;
    scene.put(50, CAVES).await;
}

/// Hazard 13.
#[tokio::test]
async fn a_publication_dropped_while_the_daemon_is_stopped_loses_nothing() {
    let mut scene = Scene::of_notes().await;
    scene.write(&*VOCABULARY).await;
    scene.start().await;
    scene.sigterm().await;
    scene.sql(DROP_PUBLICATION).await;
    change_everything(&scene).await;
    scene.start().await;
    scene.caught_up().await;
    scene.put(2, MOON).await;
    scene.caught_up().await;
}

/// Hazard 13. Servers from 18 on leave out, without an error, what a missing publication would have published.
#[tokio::test]
async fn a_publication_dropped_while_the_daemon_streams_loses_nothing() {
    let mut scene = Scene::of_notes().await;
    scene.write(&[TIDES, MOON]).await;
    scene.start().await;
    scene.sql(DROP_PUBLICATION).await;
    scene.put(1, CAVES).await;
    scene.put(3, DESERT).await;
    scene.settled("notes", "body").await;
    scene.start_is_over().await;
    scene.put(4, MOON).await;
    scene.caught_up().await;
}

/// Drops the only publication and returns its name.
async fn drop_publication(scene: &Scene) -> String {
    let name = scene.value("SELECT pubname FROM pg_publication").await;
    scene.sql(DROP_PUBLICATION).await;
    name
}

/// By all appearances the one that was there before.
async fn create_publication(scene: &Scene, name: &str) {
    scene
        .sql(&format!(
            "CREATE PUBLICATION {name} FOR TABLE ONLY notes WITH (publish = 'insert, update')"
        ))
        .await;
}

/// Hazard 13. Up to 17 the stream cannot be read any more; later servers leave out what lies between.
#[tokio::test]
async fn a_publication_made_anew_by_hand_while_the_daemon_is_stopped_loses_nothing() {
    let mut scene = Scene::of_notes().await;
    scene.write(&*VOCABULARY).await;
    scene.start().await;
    scene.sigterm().await;
    let name = drop_publication(&scene).await;
    change_everything(&scene).await;
    create_publication(&scene, &name).await;
    scene.start().await;
    scene.caught_up().await;
}

/// Hazard 13. Quicker than anybody looks.
#[tokio::test]
async fn a_publication_made_anew_by_hand_while_the_daemon_streams_loses_nothing() {
    let mut scene = Scene::of_notes().await;
    scene.write(&*VOCABULARY).await;
    scene.start().await;
    let name = drop_publication(&scene).await;
    change_everything(&scene).await;
    create_publication(&scene, &name).await;
    scene.settled("notes", "body").await;
    scene.start_is_over().await;
    scene.put(4, MOON).await;
    scene.caught_up().await;
}

/// Hazard 13. A table's owner prepared the publication, so that the daemon has no mark of its own on it.
#[tokio::test]
async fn a_prepared_publication_made_anew_while_the_daemon_is_stopped_loses_nothing() {
    let mut scene = Scene::of_notes().await;
    create_publication(&scene, "lantern_prepared_notes").await;
    scene.write(&*VOCABULARY).await;
    scene.start().await;
    scene.caught_up().await;
    scene.sigterm().await;
    let name = drop_publication(&scene).await;
    assert_eq!(name, "lantern_prepared_notes");
    change_everything(&scene).await;
    create_publication(&scene, &name).await;
    scene.start().await;
    scene.caught_up().await;
}

/// Hazard 16.
#[tokio::test]
async fn a_slot_dropped_under_a_running_daemon_loses_no_update() {
    let mut scene = Scene::of_notes().await;
    scene.write(&*VOCABULARY).await;
    scene.start().await;
    // A slot that is in use cannot be dropped, so somebody who means it is quicker than the daemon's next connection.
    let drop_at_once = "DO $$ BEGIN \
          LOOP \
            BEGIN \
              PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database(); \
              PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database(); \
              EXIT; \
            EXCEPTION WHEN object_in_use THEN NULL; \
            END; \
          END LOOP; \
          UPDATE notes SET body = NULL WHERE id = 2; \
        END $$";
    scene.sql(drop_at_once).await;
    change_everything(&scene).await;
    scene.settled("notes", "body").await;
    scene.start_is_over().await;
    scene.put(4, MOON).await;
    scene.caught_up().await;
}

/// Hazard 16.
#[tokio::test]
async fn a_slot_dropped_while_the_daemon_is_stopped_loses_no_update() {
    let mut scene = Scene::of_notes().await;
    scene.write(&*VOCABULARY).await;
    scene.start().await;
    scene.sigterm().await;
    scene.sql(DROP_SLOT).await;
    change_everything(&scene).await;
    scene.start().await;
    scene.caught_up().await;
}

/// Hazard 16, twice: what is still to be done outlives a crash in the middle of it.
#[tokio::test]
async fn a_crash_while_every_row_is_embedded_again_loses_no_update() {
    let mut scene = Scene::of_notes().await;
    let rows = "INSERT INTO notes (id, body) SELECT n, body FROM generate_series(1, 300) AS n, truth WHERE body LIKE $1";
    scene
        .client
        .execute(rows, &[&"The tides%"])
        .await
        .expect("inserted");
    scene.start().await;
    scene.sigterm().await;
    scene.sql(DROP_SLOT).await;
    let update = "UPDATE notes SET body = $1";
    scene
        .client
        .execute(update, &[&MOON])
        .await
        .expect("updated");

    // Nothing can be written while somebody holds this lock; it keeps no slot from being created.
    let locking = scene.database.client().await;
    let lock = "BEGIN; LOCK TABLE notes IN SHARE MODE";
    locking.batch_execute(lock).await.expect("locked");
    scene.spawn();
    let again = "SELECT init_started_at > init_finished_at AND EXISTS (SELECT FROM pg_replication_slots \
                 WHERE database = current_database() AND confirmed_flush_lsn IS NOT NULL) FROM jobs";
    scene.wait_for(again, "true").await;
    scene.sigkill();
    locking.batch_execute("COMMIT").await.expect("released");
    assert_eq!(
        scene
            .value("SELECT init_started_at > init_finished_at FROM jobs")
            .await,
        "true"
    );

    scene.start().await;
    scene.caught_up().await;
}

/// Hazard 17. The job's table is quiet, others are not.
#[tokio::test]
async fn an_idle_table_in_a_busy_database_holds_back_no_wal() {
    let mut scene = Scene::of_notes().await;
    scene.sql("CREATE TABLE busy (n int)").await;
    scene.start().await;
    for _ in 0..3 {
        scene
            .sql("INSERT INTO busy SELECT generate_series(1, 10000); UPDATE busy SET n = n + 1")
            .await;
        let now = scene.lsn().await;
        scene.confirmed(&now).await;
    }
}

/// Hazard 18. Rows written and changed while nobody listens, over an orderly stop and a crash.
#[tokio::test]
async fn a_restart_goes_on_where_the_last_daemon_had_come_to() {
    let mut scene = Scene::of_notes().await;
    scene.start().await;
    scene.write(&[TIDES, MOON]).await;
    scene.sigkill();
    scene.write(&[MOON, CAVES, TIDES]).await;
    scene.start().await;
    scene.caught_up().await;
    let versions = scene.versions().await;
    scene.sigterm().await;

    scene.sql("INSERT INTO notes (id) VALUES (7)").await;
    scene.start().await;
    scene.put(8, DESERT).await;
    scene.caught_up().await;
    assert!(
        scene.versions().await.starts_with(&versions),
        "finished rows were written again"
    );
}

/// I7. Whatever a job has on its server goes with it.
#[tokio::test]
async fn a_cancelled_job_leaves_neither_publication_nor_slot() {
    let mut scene = Scene::of_notes().await;
    scene.put(1, TIDES).await;
    scene.start().await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.gone().await;
    scene.put(1, MOON).await;
    scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    scene.settled("notes", "body").await;
    scene.sql("DELETE FROM jobs").await;
    scene.gone().await;
}
