//! Many small transactions of tables without a job, of which the stream shows nothing but positions.

use testkit::scene::{MOON, TIDES};
use tokio_util::sync::CancellationToken;

use crate::support::notes_scene;

const SLOT: &str = "FROM pg_replication_slots WHERE database = current_database()";

/// The walsender's own view: what it was told that the daemon has, beside how far the server is.
fn told(relation: &str) -> String {
    format!(
        "SELECT COALESCE(bool_or(write_lsn {relation}), false) FROM pg_stat_replication \
         WHERE pid = (SELECT active_pid {SLOT})"
    )
}

/// A server sends a keepalive each time that it has caught up, unless it is told that the daemon has more already.
#[tokio::test]
async fn a_busy_server_sends_few_keepalives_and_positions_are_still_confirmed() {
    let mut scene = notes_scene().await;
    scene.sql("CREATE TABLE others (n int)").await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;

    let others_stop = CancellationToken::new();
    let mut others = Vec::new();
    for _ in 0..2 {
        let (client, stop) = (scene.database.client().await, others_stop.clone());
        others.push(tokio::spawn(async move {
            while !stop.is_cancelled() {
                let written = client.batch_execute("INSERT INTO others VALUES (1)").await;
                written.expect("the server is up");
            }
        }));
    }
    scene
        .wait_for(&told("> pg_current_wal_lsn()"), "true")
        .await;
    let now = scene.value("SELECT pg_current_wal_lsn()").await;
    let is_confirmed = format!("SELECT confirmed_flush_lsn >= '{now}' {SLOT}");
    scene.wait_for(&is_confirmed, "true").await;
    scene.put(2, MOON).await;
    scene.caught_up().await;

    others_stop.cancel();
    for other in others {
        other.await.expect("it ends well");
    }
    scene
        .wait_for(&told("<= pg_current_wal_lsn()"), "true")
        .await;
    scene.put(1, MOON).await;
    scene.caught_up().await;
}
