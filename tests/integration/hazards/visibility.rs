//! Changes that are streamed before they are visible, and a server with a short `wal_sender_timeout`.

use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use testkit::client::execute;
use testkit::scene::{LONG, MOON, TIDES};
use testkit::{Scene, server};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::support::program;

/// A server on which commits wait for a standby that does not exist, if they ask for it, and walsenders wait two
/// seconds for an answer.
fn strict_server() -> &'static PrivatePostgres {
    static SERVER: LazyLock<PrivatePostgres> = LazyLock::new(|| {
        let settings = [
            ("synchronous_standby_names", "nobody"),
            ("synchronous_commit", "local"),
            ("wal_sender_timeout", "2s"),
        ];
        server::start(&server::installation(), &settings).expect("it starts")
    });
    &SERVER
}

/// Runs a statement whose commit waits for the standby; returns when it waits.
async fn commit_waiting(scene: &Scene, statement: &str) -> JoinHandle<Client> {
    let client = scene.database.client().await;
    let statement =
        format!("SET synchronous_commit = on; SET application_name = 'waits'; {statement}");
    let waiting = tokio::spawn(async move {
        let done = client.batch_execute(&statement).await;
        done.expect("a wait for a standby that is canceled ends with a warning");
        client
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waits' AND wait_event = 'SyncRep' \
                 AND datname = current_database()";
    scene.wait_for(waits, "1").await;
    waiting
}

async fn release(scene: &Scene, waiting: JoinHandle<Client>) {
    let cancel = "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name = 'waits' \
                  AND datname = current_database()";
    assert_eq!(scene.value(cancel).await, "true");
    waiting.await.expect("it ends well");
}

/// Waits until a row that is written now has its vector: the daemon has read what comes before it in the stream.
async fn wait_for_later_row(scene: &Scene) {
    scene.put(9, TIDES).await;
    let later = "SELECT embedding IS NOT NULL FROM notes WHERE id = 9";
    scene.wait_for(later, "true").await;
}

/// Hazard 2.
#[tokio::test]
async fn a_change_that_is_streamed_before_it_is_visible_is_not_lost() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384))";
    let mut scene = Scene::new(program(), strict_server(), notes).await;
    scene.job("notes", "body").await;
    scene.start_daemon().await;
    let before = scene.wal_end().await;
    let insert = "INSERT INTO notes SELECT 1, body FROM truth WHERE body LIKE 'Deserts%'";
    let waiting = commit_waiting(&scene, insert).await;
    wait_for_later_row(&scene).await;
    assert_eq!(
        scene.value("SELECT count(*) FROM notes WHERE id = 1").await,
        "0"
    );
    let behind = format!(
        "SELECT confirmed_flush_lsn <= '{before}'::pg_lsn FROM pg_replication_slots WHERE database = current_database()"
    );
    assert_eq!(
        scene.value(&behind).await,
        "true",
        "confirmed without a vector"
    );
    release(&scene, waiting).await;
    scene.caught_up().await;
    assert_eq!(
        scene
            .value("SELECT embedding IS NOT NULL FROM notes WHERE id = 1")
            .await,
        "true"
    );
}

/// Hazards 2 and 5: the stream has only the key, and a row with that key and another text is visible.
#[tokio::test]
async fn a_text_that_is_read_by_key_is_read_as_of_its_change() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384)); \
                 ALTER TABLE notes ALTER body SET STORAGE EXTERNAL";
    let mut scene = Scene::new(program(), strict_server(), notes).await;
    scene.job("notes", "body").await;
    scene.put(1, TIDES).await;
    scene.put(2, &LONG).await;
    scene.start_daemon().await;
    let swap = "BEGIN; UPDATE notes SET id = 3 WHERE id = 1; \
                UPDATE notes SET id = 1, embedding = NULL WHERE id = 2; COMMIT";
    let waiting = commit_waiting(&scene, swap).await;
    wait_for_later_row(&scene).await;
    release(&scene, waiting).await;
    scene.caught_up().await;
}

/// Hazards 2 and 9.
#[tokio::test]
async fn a_generated_text_is_read_as_of_its_change() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, raw text, body text GENERATED ALWAYS AS (raw) STORED, embedding vector(384))";
    let mut scene = Scene::new(program(), strict_server(), notes).await;
    scene.job("notes", "body").await;
    let insert = "INSERT INTO notes (id, raw) VALUES ($1, $2)";
    for (id, text) in [(1, TIDES), (2, MOON)] {
        scene.execute(insert, &[&id, &text]).await;
    }
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    let update =
        "UPDATE notes SET raw = (SELECT body FROM truth WHERE body LIKE 'Caves%') WHERE id = 1";
    let waiting = commit_waiting(&scene, update).await;
    scene.execute(insert, &[&9, &TIDES]).await;
    let later = "SELECT embedding IS NOT NULL FROM notes WHERE id = 9";
    scene.wait_for(later, "true").await;
    release(&scene, waiting).await;
    scene.caught_up().await;
}

/// Hazard 2. Commits of users hang, but the daemon goes on: it waits for no standby and holds no row locks meanwhile.
#[tokio::test]
async fn a_missing_standby_does_not_hold_up_vectors() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, body text)";
    let mut scene = Scene::new(program(), strict_server(), notes).await;
    scene
        .set_default("synchronous_commit", "remote_apply")
        .await;
    scene.put(1, TIDES).await;
    scene.job("notes", "body").await;
    scene.start_daemon().await;
    scene.put(2, MOON).await;
    scene.caught_up().await;
    // A new session has the default; its commit waits, and is seen when that wait is over.
    let insert = "INSERT INTO notes SELECT 3, body FROM truth WHERE body LIKE 'Deserts%'";
    let waiting = commit_waiting(&scene, insert).await;
    wait_for_later_row(&scene).await;
    release(&scene, waiting).await;
    scene.caught_up().await;
}

/// Hazard 21. One transaction that takes many times the server's two seconds: its position cannot be confirmed
/// meanwhile.
#[tokio::test]
async fn a_slow_embedder_does_not_time_out_the_walsender() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding vector(384))";
    let mut scene = Scene::new(program(), strict_server(), notes).await;
    scene.job("notes", "body").await;
    scene.start_daemon().await;
    let pid = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let walsender = scene.value(pid).await;
    // A locked table stands for an embedder that takes its time, and the backlog keeps the daemon from reading on.
    let backlog = "INSERT INTO notes SELECT n, CASE WHEN n % 500 = 0 THEN body ELSE '' END \
                   FROM generate_series(10, 30000) AS n, truth WHERE body LIKE 'The tides%'";
    scene.sql(backlog).await;
    let locking = scene.session("BEGIN; LOCK TABLE notes IN SHARE MODE").await;
    // Longer than twice the server's wal_sender_timeout: the wait is what is tested.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    execute(&locking, "COMMIT").await;
    scene.caught_up().await;
    assert_eq!(scene.value(pid).await, walsender, "the stream was cut");
}
