//! A daemon that is gone from one moment to the next.

use super::Fleet;
use crate::hazards::scene::{MOON, TIDES};

#[tokio::test]
async fn the_jobs_of_a_killed_daemon_are_taken_over_from_the_confirmed_position() {
    let mut fleet = Fleet::of_two(6, "3 3").await;
    let mut killed = fleet.daemons.remove(0);
    killed.sigkill();
    fleet.put(2, MOON).await;
    fleet.settled().await;
    fleet.wait_for_loads("6").await;
    fleet.confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");

    // Whoever comes next gets its share again.
    fleet.start_daemon();
    fleet.wait_for_loads("3 3").await;
    fleet.put(3, TIDES).await;
    fleet.settled().await;
    assert_eq!(fleet.not_written(1).await, "");
    fleet.no_job_has_failed().await;
}
