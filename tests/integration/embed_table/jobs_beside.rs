//! A job of a daemon and the command on one column.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::wait::TIMEOUT;

use super::{embed, spawn, wait_until_blocked};
use crate::support::notes_scene;

#[tokio::test]
async fn a_column_that_a_job_writes_is_left_to_it() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    let printed = embed(&scene, &[]).await.failed();
    for part in [
        "\"public\".\"notes\".\"embedding\" is kept up to date by job 1 of a daemon",
        "lantern-cli resync --job 1",
        "--dst-column",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    // No job writes another column.
    let other = ["--dst-column", "other", "--create-index", "hnsw"];
    let other = if scene.database.skips_vector() {
        &other[..2]
    } else {
        &other
    };
    embed(&scene, other).await.succeeded();
    scene.stop_daemon().await;
    embed(&scene, &[]).await.succeeded();
}

#[tokio::test]
async fn a_job_that_starts_meanwhile_waits_for_the_end_of_the_command() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    let held = scene.session("BEGIN; LOCK TABLE notes IN SHARE MODE").await;
    let mut command = spawn(&scene, &[]);
    wait_until_blocked(&scene).await;
    let second = embed(&scene, &[]).await.failed();
    assert!(
        second.contains("another lantern-cli embed-table"),
        "{second}"
    );
    let daemon = scene.spawn_daemon();
    daemon
        .wait_for_line("is written by lantern-cli embed-table", TIMEOUT)
        .await;
    held.batch_execute("COMMIT").await.expect("it ends");
    let (status, _) = command.wait(TIMEOUT).await;
    assert!(status.success(), "{}", command.log());
    scene.wait_for_backfill().await;
    assert_eq!(scene.failures().await, "");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}
