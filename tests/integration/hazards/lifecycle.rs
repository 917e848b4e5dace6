//! Publications, slots and positions, over stops and crashes.

use testkit::Scene;
use testkit::client::execute;
use testkit::scene::{CAVES, DESERT, MOON, TIDES, VOCABULARY};

use super::change_everything;
use crate::support::notes_scene;

/// Hazard 13.
#[tokio::test]
async fn a_publication_dropped_while_the_daemon_is_stopped_loses_nothing() {
    let mut scene = notes_scene().await;
    scene.write(&*VOCABULARY).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.drop_publication().await;
    change_everything(&scene).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    scene.put(2, MOON).await;
    scene.caught_up().await;
}

/// Hazard 13. Servers from 18 on leave out, without an error, what a missing publication would have published.
#[tokio::test]
async fn a_publication_dropped_while_the_daemon_streams_loses_nothing() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.drop_publication().await;
    scene.put(1, CAVES).await;
    scene.put(3, DESERT).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_backfill().await;
    scene.put(4, MOON).await;
    scene.caught_up().await;
}

/// Hazard 61. An event trigger tells which locks the session has that drops the publication.
#[tokio::test]
async fn a_publication_is_dropped_while_no_statement_writes_to_its_table() {
    let mut scene = notes_scene().await;
    scene
        .sql(
            "CREATE TABLE seen (mode text);
             CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO seen SELECT COALESCE(max(mode) FILTER (WHERE relation = 'notes'::regclass \
                 AND mode = 'ShareRowExclusiveLock'), 'none') FROM pg_locks WHERE pid = pg_backend_pid(); END $$;
             CREATE EVENT TRIGGER see ON ddl_command_start WHEN tag IN ('DROP PUBLICATION') EXECUTE FUNCTION see()",
        )
        .await;
    let seen = "SELECT string_agg(mode, ' ' ORDER BY mode) FROM seen";
    let publications = "SELECT count(*) FROM pg_publication";
    scene.start_daemon().await;
    let cancel = "TRUNCATE seen; UPDATE jobs SET canceled_at = true";
    scene.sql(cancel).await;
    scene.wait_for(publications, "0").await;
    assert_eq!(scene.value(seen).await, "ShareRowExclusiveLock");
    // A transaction that stays open does not keep it: who waits for the lock gives up.
    scene.sql("UPDATE jobs SET canceled_at = false").await;
    scene.wait_for(publications, "1").await;
    scene.caught_up().await;
    let writing = scene
        .session("BEGIN; INSERT INTO notes VALUES (9, 'a text')")
        .await;
    scene.sql(cancel).await;
    scene.wait_for(publications, "0").await;
    assert_eq!(scene.value(seen).await, "none");
    execute(&writing, "COMMIT").await;
}

/// Looks exactly like the dropped one.
async fn create_publication(scene: &Scene, name: &str) {
    scene
        .sql(&format!(
            "CREATE PUBLICATION {name} FOR TABLE ONLY notes WITH (publish = 'insert, update')"
        ))
        .await;
}

/// Hazard 13. Up to 17 the stream cannot be read any more; later servers leave out what lies between.
#[tokio::test]
async fn a_publication_recreated_while_the_daemon_is_stopped_loses_nothing() {
    let mut scene = notes_scene().await;
    scene.write(&*VOCABULARY).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    let name = scene.drop_publication().await;
    change_everything(&scene).await;
    create_publication(&scene, &name).await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 13. Faster than the daemon polls.
#[tokio::test]
async fn a_publication_recreated_while_the_daemon_streams_loses_nothing() {
    let mut scene = notes_scene().await;
    scene.write(&*VOCABULARY).await;
    scene.start_daemon().await;
    let name = scene.drop_publication().await;
    change_everything(&scene).await;
    create_publication(&scene, &name).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_backfill().await;
    scene.put(4, MOON).await;
    scene.caught_up().await;
}

/// Hazard 13. The table's owner prepared the publication, so it carries no comment of the daemon.
#[tokio::test]
async fn a_prepared_publication_recreated_while_the_daemon_is_stopped_loses_nothing() {
    let mut scene = notes_scene().await;
    create_publication(&scene, "lantern_prepared_notes").await;
    scene.write(&*VOCABULARY).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    scene.stop_daemon().await;
    let name = scene.drop_publication().await;
    assert_eq!(name, "lantern_prepared_notes");
    change_everything(&scene).await;
    create_publication(&scene, &name).await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 16.
#[tokio::test]
async fn a_slot_dropped_under_a_running_daemon_loses_no_update() {
    let mut scene = notes_scene().await;
    scene.write(&*VOCABULARY).await;
    scene.start_daemon().await;
    // A slot that is in use cannot be dropped, so this has to be faster than the daemon's next connection.
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
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_backfill().await;
    scene.put(4, MOON).await;
    scene.caught_up().await;
}

/// Hazard 16.
#[tokio::test]
async fn a_slot_dropped_while_the_daemon_is_stopped_loses_no_update() {
    let mut scene = notes_scene().await;
    scene.write(&*VOCABULARY).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.drop_slots().await;
    change_everything(&scene).await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 16, twice: what is still to be done outlives a crash in the middle of it.
#[tokio::test]
async fn a_crash_while_every_row_is_embedded_again_loses_no_update() {
    let mut scene = notes_scene().await;
    let rows = "INSERT INTO notes (id, body) SELECT n, body FROM generate_series(1, 300) AS n, truth WHERE body LIKE $1";
    scene.execute(rows, &[&"The tides%"]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene.drop_slots().await;
    let update = "UPDATE notes SET body = $1";
    scene.execute(update, &[&MOON]).await;

    // This lock blocks writes, but not the creation of slots.
    let lock = "BEGIN; LOCK TABLE notes IN SHARE MODE";
    let locking = scene.session(lock).await;
    scene.spawn_daemon();
    let again = "SELECT init_started_at > init_finished_at AND EXISTS (SELECT FROM pg_replication_slots \
                 WHERE database = current_database() AND confirmed_flush_lsn IS NOT NULL) FROM jobs";
    scene.wait_for(again, "true").await;
    scene.kill_daemon();
    execute(&locking, "COMMIT").await;
    assert_eq!(
        scene
            .value("SELECT init_started_at > init_finished_at FROM jobs")
            .await,
        "true"
    );

    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 17. The job's table is quiet, others are not.
#[tokio::test]
async fn an_idle_table_in_a_busy_database_holds_back_no_wal() {
    let mut scene = notes_scene().await;
    scene.sql("CREATE TABLE busy (n int)").await;
    scene.start_daemon().await;
    for _ in 0..3 {
        scene
            .sql("INSERT INTO busy SELECT generate_series(1, 10000); UPDATE busy SET n = n + 1")
            .await;
        scene.wait_until_confirmed().await;
    }
}

/// Hazard 18. Rows are written and changed while no daemon runs, after an orderly stop and after a crash.
#[tokio::test]
async fn a_restart_continues_where_the_last_daemon_stopped() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON]).await;
    scene.kill_daemon();
    scene.write(&[MOON, CAVES, TIDES]).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    let versions = scene.row_versions().await;
    scene.stop_daemon().await;

    scene.sql("INSERT INTO notes (id) VALUES (7)").await;
    scene.start_daemon().await;
    scene.put(8, DESERT).await;
    scene.caught_up().await;
    assert!(
        scene.row_versions().await.starts_with(&versions),
        "finished rows were written again"
    );
}

/// I7. A job removes what it has created on its server, the vectors excepted.
#[tokio::test]
async fn a_canceled_job_leaves_neither_publication_nor_slot() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    scene.put(1, MOON).await;
    scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    scene.wait_for_vectors("notes", "body").await;
    scene.sql("DELETE FROM jobs").await;
    scene.wait_for_cleanup().await;
}
