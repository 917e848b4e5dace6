//! Applications write large logical messages into the WAL, which come through every stream.

use testkit::procfs;
use testkit::scene::{MOON, NOTES, TIDES};

use crate::support::scene_with;

/// The content of the message.
const MEGABYTES: u64 = 200;
/// Far less than one message.
const ROOM: u64 = 100 << 20;

/// Hazard 43. pglogical #482. The daemon's memory does not grow with a message, nor with the number of jobs that it reaches.
#[tokio::test]
async fn a_large_message_of_an_application_takes_no_memory() {
    let tables = ["notes", "second", "third"].map(|table| NOTES.replace("notes", table));
    let mut scene = scene_with(&tables.join(";")).await;
    for table in ["notes", "second", "third"] {
        scene.job(table, "body").await;
    }
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.caught_up().await;
    let process = scene.daemon().id();
    procfs::reset_peak(process);
    let before = procfs::resident(process).peak;
    for transactional in [false, true] {
        scene
            .sql(&format!(
                "SELECT pg_logical_emit_message({transactional}, 'app', repeat('x', {MEGABYTES} << 20))"
            ))
            .await;
    }
    scene.put(1, MOON).await;
    scene.caught_up().await;
    let grown = procfs::resident(process).peak - before;
    assert!(grown < ROOM, "{grown} bytes more");
}
