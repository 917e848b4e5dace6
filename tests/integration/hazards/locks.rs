//! Users do not wait for the daemon, and the daemon does not wait for users while it holds locks.

use std::time::{Duration, Instant};

use testkit::Scene;
use testkit::client::execute;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};

use crate::support::{notes_scene, scene_with};

/// The daemon gives up a lock request after 300 ms; the rest is for a busy machine.
const MAX_WAIT: Duration = Duration::from_millis(2000);

/// Hazard 14. ALTER TABLE (the column is missing) and then CREATE PUBLICATION wait behind a long transaction. A
/// statement that queues behind them would wait just as long.
#[tokio::test]
async fn users_do_not_wait_for_the_setup_of_a_job() {
    let mut scene = scene_with("CREATE TABLE notes (id int PRIMARY KEY, body text)").await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    let read = "BEGIN; SELECT * FROM notes";
    let reader = scene.session(read).await;
    scene.spawn_daemon();
    let waiting =
        "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'notes'::regclass";
    scene.wait_for(waiting, "true").await;
    waits_shortly(&scene).await;
    execute(&reader, "COMMIT").await;

    let column = "SELECT count(*) FROM pg_attribute WHERE attname = 'embedding' AND attrelid = 'notes'::regclass";
    scene.wait_for(column, "1").await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 14. SHARE UPDATE EXCLUSIVE is what VACUUM holds, and in the way of CREATE PUBLICATION.
#[tokio::test]
async fn a_publication_that_cannot_be_created_yet_is_created_later() {
    let mut scene = notes_scene().await;
    let lock = "BEGIN; LOCK TABLE notes IN SHARE UPDATE EXCLUSIVE MODE";
    let holder = scene.session(lock).await;
    scene.spawn_daemon();
    let waiting =
        "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'notes'::regclass";
    scene.wait_for(waiting, "true").await;
    waits_shortly(&scene).await;
    execute(&holder, "COMMIT").await;
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
}

async fn waits_shortly(scene: &Scene) {
    for id in 11..14 {
        let begin = Instant::now();
        scene
            .execute("INSERT INTO notes (id) VALUES ($1)", &[&id])
            .await;
        assert!(begin.elapsed() < MAX_WAIT, "{:?}", begin.elapsed());
    }
}

/// Hazard 15. An open transaction holds up the slot; a job that is canceled meanwhile leaves no half-made one behind.
#[tokio::test]
async fn a_job_canceled_during_slot_creation_leaves_nothing() {
    let mut scene = notes_scene().await;
    let write = "BEGIN; CREATE TABLE unrelated (n int)";
    let writer = scene.session(write).await;
    scene.spawn_daemon();
    let creating = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    scene.wait_for(creating, "1").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    execute(&writer, "COMMIT").await;
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");

    scene.put(1, TIDES).await;
    scene.sql("UPDATE jobs SET canceled_at = false").await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 30.
#[tokio::test]
async fn a_locked_row_holds_up_neither_other_rows_nor_other_users() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.caught_up().await;
    scene.stop_daemon().await;
    scene.write(&[MOON, CAVES, TIDES]).await;
    let before = scene.wal_end().await;
    let lock = "BEGIN; SELECT FROM notes WHERE id = 2 FOR UPDATE";
    let holder = scene.session(lock).await;

    scene.start_daemon().await;
    let others = "SELECT count(*) FROM notes JOIN truth USING (body) WHERE id <> 2 AND vector <-> embedding < 0.001";
    scene.wait_for(others, "2").await;
    // Other users have the rows of the same batch at once, time and again.
    for _ in 0..5 {
        let begin = Instant::now();
        scene
            .sql("UPDATE notes SET views = views + 1 WHERE id <> 2")
            .await;
        assert!(begin.elapsed() < MAX_WAIT, "{:?}", begin.elapsed());
    }
    // Later changes go on; only the position waits.
    scene.put(4, TIDES).await;
    let later = "SELECT embedding IS NOT NULL FROM notes WHERE id = 4";
    scene.wait_for(later, "true").await;
    let behind = format!(
        "SELECT confirmed_flush_lsn < '{before}' FROM pg_replication_slots WHERE database = current_database()"
    );
    assert_eq!(scene.value(&behind).await, "true");
    assert_ne!(scene.wrong_vectors("notes", "body").await, "");

    execute(&holder, "COMMIT").await;
    scene.caught_up().await;
}

/// Hazard 30. Two users who update all rows in opposite orders, and the daemon in between: no deadlock is of its
/// making.
#[tokio::test]
async fn write_backs_take_no_part_in_deadlocks() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene
        .sql("INSERT INTO notes (id, body) SELECT n, '' FROM generate_series(1, 40) AS n")
        .await;
    let upwards = "SELECT id FROM notes ORDER BY id FOR UPDATE";
    let (client, other) = (scene.database.client().await, scene.database.client().await);
    for (round, text) in [TIDES, MOON, CAVES, TIDES, MOON, CAVES]
        .into_iter()
        .enumerate()
    {
        let order = if round % 2 == 0 { "ASC" } else { "DESC" };
        execute(&client, "BEGIN").await;
        for id in 1..=40 {
            let id = if order == "ASC" { id } else { 41 - id };
            client
                .execute("UPDATE notes SET body = $1 WHERE id = $2", &[&text, &id])
                .await
                .expect("no deadlock");
        }
        execute(&client, "COMMIT").await;
        wait_until("all rows can be locked", TIMEOUT, async || {
            other.query(upwards, &[]).await
        })
        .await;
    }
    scene.caught_up().await;
}
