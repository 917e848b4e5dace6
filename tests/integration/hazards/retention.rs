//! How much WAL the job's slot holds back on its server, and what becomes of a slot that the server has given up.

use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use tokio_postgres::Client;

use super::{CAVES, DESERT, MOON, PATIENCE, Scene, TIDES};
use crate::support::installation;

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384))";
const LIMIT: [&str; 2] = ["--max-retained-wal", "64MB"];

/// What the slot of this database holds back is within the limit; so it is where there is none.
const WITHIN_LIMIT: &str = "SELECT COALESCE(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) < 64 << 20 \
                            FROM pg_replication_slots WHERE database = current_database()";

const DROPPED: &str = "is dropped, since it held back more than 64 MB (--max-retained-wal)";

/// A server of their own: how much WAL is written is what these tests are about.
fn quiet_server() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| {
        PrivatePostgres::start_temporary(&installation(), Vec::new()).expect("it starts")
    });
    &SERVER
}

/// One more, since an open transaction holds up every slot of its server.
fn forgetful_server() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| {
        PrivatePostgres::start_temporary(&installation(), Vec::new()).expect("it starts")
    });
    &SERVER
}

/// Gives up slots that are a few segments behind.
fn stingy_server() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| {
        let settings = vec![("max_slot_wal_keep_size".to_owned(), "16MB".to_owned())];
        PrivatePostgres::start_temporary(&installation(), settings).expect("it starts")
    });
    &SERVER
}

/// Writes so much WAL that concerns no table.
async fn write_wal(scene: &Scene, megabytes: u32) {
    let emit = format!(
        "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1 << 20))) FROM generate_series(1, {megabytes})"
    );
    assert_eq!(scene.value(&emit).await, megabytes.to_string());
    scene.sql("SELECT pg_switch_wal()").await;
}

/// Makes each write-back of row 99 wait until the client that is returned lets go of it, and makes one wait.
async fn hold_write_backs(scene: &Scene) -> Client {
    scene.sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$; \
         CREATE TRIGGER waits BEFORE UPDATE OF embedding ON notes FOR EACH ROW WHEN (NEW.id = 99) EXECUTE FUNCTION wait()",
    )
    .await;
    let holder = scene.database.client().await;
    let lock = "SELECT pg_advisory_lock(1)";
    holder.batch_execute(lock).await.expect("locked");
    scene.put(99, TIDES).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()";
    scene.wait_for(waiting, "1").await;
    holder
}

async fn release(holder: Client) {
    let unlock = "SELECT pg_advisory_unlock(1)";
    holder.batch_execute(unlock).await.expect("released");
}

/// Changes after which every vector that is there is a wrong one.
async fn change_everything(scene: &Scene) {
    scene
        .sql("UPDATE notes SET body = NULL WHERE id = 2; UPDATE notes SET id = 30 WHERE id = 3")
        .await;
    scene.put(1, DESERT).await;
    scene.put(4, DESERT).await;
}

/// Hazard 26. A job that falls behind does not fill its server's disk, and loses nothing by that.
#[tokio::test]
async fn a_slot_past_its_limit_is_let_go_and_every_vector_is_right_afterwards() {
    let mut scene = Scene::on(quiet_server(), NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.spawn_with(&LIMIT);
    scene.start_is_over().await;
    let holder = hold_write_backs(&scene).await;
    change_everything(&scene).await;

    write_wal(&scene, 40).await;
    let warned = scene
        .daemon()
        .wait_for_line("Past 64 MB (--max-retained-wal)", PATIENCE)
        .await;
    assert!(
        warned.contains("WARN") && warned.contains("holds back 4"),
        "{warned}"
    );
    assert_eq!(scene.value(WITHIN_LIMIT).await, "true");
    write_wal(&scene, 40).await;
    scene.wait_for(WITHIN_LIMIT, "true").await;
    scene.daemon().wait_for_line(DROPPED, PATIENCE).await;
    let noted = "SELECT init_started_at > init_finished_at FROM jobs";
    scene.wait_for(noted, "true").await;

    release(holder).await;
    scene.start_is_over().await;
    scene.caught_up().await;
    let log = scene.daemon().log();
    assert_eq!(log.matches(DROPPED).count(), 1, "{log}");
}

/// Hazard 26. What is noted is the slot's absence, so that a crash at any moment changes nothing.
#[tokio::test]
async fn a_crash_after_the_slot_was_let_go_loses_nothing() {
    let mut scene = Scene::on(quiet_server(), NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.spawn_with(&LIMIT);
    scene.start_is_over().await;
    let holder = hold_write_backs(&scene).await;
    change_everything(&scene).await;
    write_wal(&scene, 80).await;
    scene.wait_for(WITHIN_LIMIT, "true").await;
    scene.sigkill();
    release(holder).await;
    scene.start().await;
    scene.caught_up().await;
}

/// Hazard 26. Not the job but somebody's open transaction holds back the WAL: it costs the job one slot, and the disk no more
/// than the limit for as long as it stays open.
#[tokio::test]
async fn a_forgotten_transaction_costs_one_slot_and_never_the_disk() {
    let mut scene = Scene::on(forgetful_server(), NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.spawn_with(&LIMIT);
    scene.start_is_over().await;
    let forgotten = scene.database.client().await;
    let write = "SET application_name = 'forgetful'; CREATE TABLE other (n int); BEGIN; INSERT INTO other VALUES (1)";
    forgotten.batch_execute(write).await.expect("open");
    change_everything(&scene).await;
    scene.caught_up().await;

    write_wal(&scene, 80).await;
    let now = scene.lsn().await;
    scene.confirmed(&now).await;
    assert_eq!(
        scene.value(WITHIN_LIMIT).await,
        "false",
        "nothing is held back"
    );
    scene.wait_for(WITHIN_LIMIT, "true").await;
    let dropped = scene.daemon().wait_for_line(DROPPED, PATIENCE).await;
    assert!(dropped.contains("forgetful"), "{dropped}");
    scene.put(1, CAVES).await;
    // The slot that is being made waits for the transaction too.
    let making = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn IS NULL";
    scene.wait_for(making, "1").await;
    write_wal(&scene, 80).await;
    scene.wait_for(WITHIN_LIMIT, "true").await;

    forgotten.batch_execute("COMMIT").await.expect("ended");
    scene.start_is_over().await;
    scene.caught_up().await;
    let log = scene.daemon().log();
    assert_eq!(log.matches(DROPPED).count(), 1, "{log}");
}

/// Hazards 16 and 26. Nobody bounds the slot while no daemon runs, so the server does.
#[tokio::test]
async fn a_slot_that_the_server_gave_up_while_the_daemon_was_stopped_loses_no_update() {
    let mut scene = Scene::on(stingy_server(), NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start().await;
    scene.sigterm().await;
    change_everything(&scene).await;
    lose_slot(&scene).await;
    scene.start().await;
    scene.caught_up().await;
    scene.put(1, MOON).await;
    scene.caught_up().await;
}

/// Hazard 16. The server ends the connection and takes the WAL while the daemon streams.
#[tokio::test]
async fn a_slot_that_the_server_gives_up_under_a_running_daemon_loses_no_update() {
    let mut scene = Scene::on(stingy_server(), NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start().await;
    let holder = hold_write_backs(&scene).await;
    change_everything(&scene).await;
    write_wal(&scene, 64).await;
    scene.sql("CHECKPOINT").await;
    let noted = "SELECT init_started_at > init_finished_at FROM jobs";
    scene.wait_for(noted, "true").await;
    release(holder).await;
    scene.start_is_over().await;
    scene.caught_up().await;
}

/// Writes WAL until the server has given up the slot of this database.
async fn lose_slot(scene: &Scene) {
    write_wal(scene, 64).await;
    scene.sql("CHECKPOINT").await;
    let status = "SELECT string_agg(wal_status, ',') FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(scene.value(status).await, "lost");
}
