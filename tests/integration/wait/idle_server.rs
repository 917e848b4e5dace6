//! Waits on a server where nothing else happens: no other commit flushes the WAL, and no record follows the last one.

use std::sync::LazyLock;

use lantern::embedded::PrivatePostgres;
use testkit::scene::{MOON, NOTES, TIDES};
use testkit::{Scene, server};

use super::create_function;
use crate::support::program;

/// A server of its own, which writes no WAL by itself but every 15 s.
static IDLE: LazyLock<PrivatePostgres> = LazyLock::new(|| {
    let settings = [("autovacuum", "off"), ("checkpoint_timeout", "1h")];
    server::start_with_room(&server::installation(), &settings)
});

async fn idle_scene() -> Scene {
    let mut scene = Scene::new(program(), &IDLE, NOTES).await;
    scene.job("notes", "body").await;
    create_function(&scene).await;
    scene.start_daemon().await;
    scene
}

/// Asserts that both kinds of wait end before the server writes anything by itself, most of the time.
async fn assert_waits_end(scene: &Scene) {
    let call = "SELECT lantern_wait_for_embeddings(1, pg_current_wal_insert_lsn(), '6 s')";
    assert_eq!(scene.value(call).await, "true");
    let uri = scene.database.uri();
    let wait = ["wait", "--uri", &uri, "--job", "1", "--timeout", "6s"];
    program().stdout_of(&wait).await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

/// One test, as another one would commit something meanwhile.
#[tokio::test]
async fn what_is_of_no_commit_does_not_hold_up_a_wait() {
    let scene = idle_scene().await;
    scene.sql("CREATE TABLE other (n int)").await;

    // The end of the WAL is behind changes that are not flushed, and nothing flushes them.
    scene.put(1, TIDES).await;
    let open = scene.session("BEGIN; INSERT INTO other VALUES (1)").await;
    assert_waits_end(&scene).await;
    open.batch_execute("ROLLBACK").await.expect("it is open");

    // `pg_current_wal_insert_lsn()` is behind the header of a page that is empty.
    scene.put(1, MOON).await;
    let fill = "DO $$ BEGIN LOOP
                  PERFORM pg_logical_emit_message(false, 'filling', 'pages');
                  EXIT WHEN mod(pg_current_wal_insert_lsn() - '0/0', 8192) = 24;
                END LOOP; END $$";
    scene.sql(fill).await;
    assert_waits_end(&scene).await;
}
