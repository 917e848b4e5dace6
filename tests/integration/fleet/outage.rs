//! The jobs database goes away for a moment, and with it every lock of every daemon.

use testkit::scene::{CAVES, MOON};

use super::{Fleet, TIDES};

const CUT: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'lantern-cli: jobs' AND datname = current_database()";

#[tokio::test]
async fn daemons_that_lose_their_locks_take_their_own_jobs_again() {
    let fleet = Fleet::of_two(6, "3 3").await;
    let before = fleet.walsenders().await;
    for (id, text) in [(2, TIDES), (3, MOON), (4, CAVES)] {
        assert_eq!(fleet.scene.value(CUT).await, "2");
        fleet.put(id, text).await;
        fleet.wait_for_vectors().await;
        fleet.wait_for_loads("3 3").await;
    }
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");
    // The streams were not interrupted.
    assert_eq!(fleet.walsenders().await, before);
    assert_eq!(fleet.scene.failures().await, "");
}
