//! Two daemons with one jobs table, and connections that the server terminates.

use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use crate::support::notes_scene;

const WALSENDER: &str =
    "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";

/// Hazard 20.
#[tokio::test]
async fn a_second_daemon_stands_by_and_takes_over_when_the_first_is_killed() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    let walsender = scene.value(WALSENDER).await;
    let standing_by = "another daemon runs this job; standing by";
    scene
        .spawn_daemon()
        .wait_for_line(standing_by, Duration::from_secs(30))
        .await;
    scene.write(&[TIDES, MOON]).await;
    scene.caught_up().await;
    let versions = scene.row_versions().await;
    assert_eq!(scene.value(WALSENDER).await, walsender);

    scene.kill_daemon();
    scene.put(3, CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.caught_up().await;
    assert!(scene.row_versions().await.starts_with(&versions));
}

/// Hazard 20. The first daemon hangs with its connections open and loses its lock. Its walsender still holds the slot.
/// When it continues, it must not touch the job.
#[tokio::test]
async fn a_hung_daemon_that_holds_the_slot_is_replaced_and_does_not_resume_the_job() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    let zombie = scene.value(WALSENDER).await;
    let standing_by = "another daemon runs this job; standing by";
    scene
        .spawn_daemon()
        .wait_for_line(standing_by, Duration::from_secs(30))
        .await;
    scene.daemon().signal(Signal::SIGSTOP);
    let unlock = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                  AND application_name = 'lantern-cli: jobs' ORDER BY backend_start LIMIT 1";
    assert_eq!(scene.value(unlock).await, "true");
    scene.put(1, TIDES).await;
    scene.wait_for_vectors("notes", "body").await;
    assert_ne!(scene.value(WALSENDER).await, zombie);

    scene.daemon().signal(Signal::SIGCONT);
    let left = "another daemon has taken this job over";
    scene
        .daemon()
        .wait_for_line(left, Duration::from_secs(30))
        .await;
    scene.put(1, MOON).await;
    scene.put(2, DESERT).await;
    scene.wait_for_vectors("notes", "body").await;
    scene
        .wait_for(
            "SELECT count(*) FROM jobs WHERE init_failed_at IS NULL",
            "1",
        )
        .await;
    // The first daemon is the standby now.
    scene.daemon().signal(Signal::SIGKILL);
    scene.put(2, CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 25. Each of the daemon's connections, cut by the server.
#[tokio::test]
async fn a_cut_connection_is_opened_again() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name LIKE 'lantern-cli%' AND datname = current_database() AND backend_type LIKE ";
    for (id, kind) in [(1, "'walsender'"), (2, "'client backend'"), (3, "'%'")] {
        scene.put(id, TIDES).await;
        assert_ne!(scene.value(&format!("{cut}{kind}")).await, "0");
        scene.put(id + 10, MOON).await;
        scene.wait_for_vectors("notes", "body").await;
    }
    assert_eq!(
        scene
            .value("SELECT count(*) FROM jobs WHERE init_failed_at IS NULL")
            .await,
        "1"
    );
}
