//! How much WAL a slot retains, and slots that the server has invalidated.

use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use testkit::client::execute;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::wait::TIMEOUT;
use testkit::{Scene, server};
use tokio::sync::{Mutex, MutexGuard};

use super::change_everything;
use super::held_write_back::HeldWriteBack;
use crate::support::program;

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384))";
const LIMIT: [&str; 2] = ["--max-retained-wal", "64MB"];

/// Whether the slot of this database retains less WAL than the limit. True without a slot.
const WITHIN_LIMIT: &str = "SELECT COALESCE(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) < 64 << 20 \
                            FROM pg_replication_slots WHERE database = current_database()";

const DROPPED: &str = "is dropped, since it retained more than 64 MB (--max-retained-wal)";

/// A server of their own, one test at a time: they measure how much WAL is written, by whomever.
async fn quiet_server() -> (&'static PrivatePostgres, MutexGuard<'static, ()>) {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| start(&[]));
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    (&SERVER, turn)
}

/// Another one, because an open transaction holds up the slots of the whole server.
fn server_with_open_transaction() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| start(&[]));
    &SERVER
}

/// A server that invalidates slots that are a few segments behind.
fn invalidating_server() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> =
        LazyLock::new(|| start(&[("max_slot_wal_keep_size", "16MB")]));
    &SERVER
}

fn start(settings: &[(&str, &str)]) -> PrivatePostgres {
    server::start(&server::installation(), settings).expect("it starts")
}

/// Three rows with their vectors, and a daemon with these arguments.
async fn streaming(server: &'static PrivatePostgres, arguments: &[&str]) -> Scene {
    let mut scene = Scene::new(program(), server, NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.spawn_daemon_with(arguments);
    scene.wait_for_backfill().await;
    scene
}

/// Writes this much WAL that concerns no table.
async fn write_wal(scene: &Scene, megabytes: u32) {
    let emit = format!(
        "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1 << 20))) FROM generate_series(1, {megabytes})"
    );
    assert_eq!(scene.value(&emit).await, megabytes.to_string());
    scene.sql("SELECT pg_switch_wal()").await;
}

/// Hazard 26. A job that falls behind does not fill its server's disk, and loses nothing.
#[tokio::test]
async fn a_slot_past_its_limit_is_dropped_and_every_vector_is_right_afterwards() {
    let (server, _turn) = quiet_server().await;
    let mut scene = streaming(server, &LIMIT).await;
    let held = HeldWriteBack::begin(&scene).await;
    change_everything(&scene).await;

    write_wal(&scene, 40).await;
    let warned = scene
        .daemon()
        .wait_for_line("Past 64 MB (--max-retained-wal)", TIMEOUT)
        .await;
    assert!(
        warned.contains("WARN") && warned.contains("retains 4"),
        "{warned}"
    );
    assert_eq!(scene.value(WITHIN_LIMIT).await, "true");
    write_wal(&scene, 40).await;
    scene.wait_for(WITHIN_LIMIT, "true").await;
    scene.daemon().wait_for_line(DROPPED, TIMEOUT).await;
    let noted = "SELECT init_started_at > init_finished_at FROM jobs";
    scene.wait_for(noted, "true").await;

    held.release().await;
    scene.wait_for_backfill().await;
    scene.caught_up().await;
    let log = scene.daemon().log();
    assert_eq!(log.matches(DROPPED).count(), 1, "{log}");
}

/// Hazard 26. The missing slot itself is the record that changes were missed, so a crash at any moment changes nothing.
#[tokio::test]
async fn a_crash_after_the_slot_was_dropped_loses_nothing() {
    let (server, _turn) = quiet_server().await;
    let mut scene = streaming(server, &LIMIT).await;
    let held = HeldWriteBack::begin(&scene).await;
    change_everything(&scene).await;
    write_wal(&scene, 80).await;
    scene.wait_for(WITHIN_LIMIT, "true").await;
    scene.kill_daemon();
    held.release().await;
    scene.start_daemon().await;
    scene.caught_up().await;
}

/// Hazard 26. Not the job but an open transaction retains the WAL. It costs the job one slot, and the disk no more
/// than the limit while it stays open.
#[tokio::test]
async fn a_forgotten_transaction_costs_one_slot_and_never_the_disk() {
    let mut scene = streaming(server_with_open_transaction(), &LIMIT).await;
    let write = "SET application_name = 'forgetful'; CREATE TABLE other (n int); BEGIN; INSERT INTO other VALUES (1)";
    let forgotten = scene.session(write).await;
    change_everything(&scene).await;
    scene.caught_up().await;

    write_wal(&scene, 80).await;
    scene.wait_until_confirmed().await;
    assert_eq!(
        scene.value(WITHIN_LIMIT).await,
        "false",
        "no WAL is retained"
    );
    scene.wait_for(WITHIN_LIMIT, "true").await;
    let dropped = scene.daemon().wait_for_line(DROPPED, TIMEOUT).await;
    assert!(dropped.contains("forgetful"), "{dropped}");
    scene.put(1, CAVES).await;
    // The creation of the next slot waits for the transaction, too.
    let making = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn IS NULL";
    scene.wait_for(making, "1").await;
    write_wal(&scene, 80).await;
    scene.wait_for(WITHIN_LIMIT, "true").await;

    execute(&forgotten, "COMMIT").await;
    scene.wait_for_backfill().await;
    scene.caught_up().await;
    let log = scene.daemon().log();
    assert_eq!(log.matches(DROPPED).count(), 1, "{log}");
}

/// Hazards 16 and 26. Without a daemon only the server can limit the slot.
#[tokio::test]
async fn a_slot_invalidated_while_the_daemon_is_stopped_loses_no_update() {
    let mut scene = streaming(invalidating_server(), &[]).await;
    scene.stop_daemon().await;
    change_everything(&scene).await;
    lose_slot(&scene).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    scene.put(1, MOON).await;
    scene.caught_up().await;
}

/// Hazard 16. The server ends the connection and takes the WAL while the daemon streams.
#[tokio::test]
async fn a_slot_invalidated_while_the_daemon_streams_loses_no_update() {
    let scene = streaming(invalidating_server(), &[]).await;
    let held = HeldWriteBack::begin(&scene).await;
    change_everything(&scene).await;
    write_wal(&scene, 64).await;
    scene.sql("CHECKPOINT").await;
    let noted = "SELECT init_started_at > init_finished_at FROM jobs";
    scene.wait_for(noted, "true").await;
    held.release().await;
    scene.wait_for_backfill().await;
    scene.caught_up().await;
}

/// Writes WAL until the server has invalidated the slot of this database.
async fn lose_slot(scene: &Scene) {
    write_wal(scene, 64).await;
    scene.sql("CHECKPOINT").await;
    let status = "SELECT string_agg(wal_status, ',') FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(scene.value(status).await, "lost");
}
