//! A daemon that is killed.

use testkit::scene::{MOON, TIDES};

use super::Fleet;

#[tokio::test]
async fn the_jobs_of_a_killed_daemon_are_taken_over_from_the_confirmed_position() {
    let mut fleet = Fleet::of_two(6, "3 3").await;
    let mut killed = fleet.daemons.remove(0);
    killed.kill();
    fleet.put(2, MOON).await;
    fleet.wait_for_vectors().await;
    fleet.wait_for_loads("6").await;
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");

    // The next daemon gets its share again.
    fleet.start_daemon();
    fleet.wait_for_loads("3 3").await;
    fleet.put(3, TIDES).await;
    fleet.wait_for_vectors().await;
    assert_eq!(fleet.not_written(1).await, "");
    assert_eq!(fleet.scene.failures().await, "");
}
