//! Jobs that end while several daemons look on.

use testkit::client::execute;
use testkit::scene::MOON;

use super::{Fleet, TIDES};

#[tokio::test]
async fn a_cancelled_and_a_deleted_job_leave_nothing_and_a_job_taken_back_runs_once() {
    let fleet = Fleet::of_two(4, "2 2").await;
    fleet
        .scene
        .sql("UPDATE jobs SET canceled_at = true WHERE id <= 2; DELETE FROM jobs WHERE id > 2")
        .await;
    fleet.scene.wait_for_cleanup().await;
    fleet.wait_for_loads("").await;
    fleet.scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    fleet.wait_for_loads("1 1").await;
    // Until then the end of the first start is in the jobs table.
    fleet.wait_for_streams(2).await;
    fleet.scene.wait_for_backfill().await;
    for table in ["t1", "t2"] {
        let insert = format!("INSERT INTO {table} VALUES (2, '{TIDES}')");
        fleet.scene.sql(&insert).await;
        fleet.scene.wait_for_vectors(table, "body").await;
    }
    let written = "SELECT count(*) FROM writes WHERE id = 2";
    assert_eq!(fleet.scene.value(written).await, "2");
    for daemon in &fleet.daemons {
        let log = daemon.log();
        assert!(
            !log.contains("ERROR") && !log.contains("has taken this job over"),
            "{log}"
        );
    }
}

/// The daemon that was to clean up dies over it; another one that saw the job end does it.
#[tokio::test]
async fn what_a_dying_daemon_leaves_of_a_cancelled_job_another_removes() {
    let mut fleet = Fleet::of_two(2, "1 1").await;
    // The row is locked, so that neither daemon can read on; then one dies, and the other finds the job cancelled.
    let block = "BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE; UPDATE jobs SET canceled_at = true WHERE id = 1";
    let blocker = fleet.scene.session(block).await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass";
    fleet.scene.wait_for(waiting, "2").await;
    let holds_first = fleet.daemons[0].log().contains("id=1}: streaming");
    let mut killed = fleet.daemons.remove(usize::from(!holds_first));
    killed.kill();
    execute(&blocker, "COMMIT").await;
    fleet
        .scene
        .wait_for("SELECT count(*) FROM pg_publication", "1")
        .await;
    fleet.wait_for_loads("1").await;
    fleet
        .scene
        .sql(&format!("INSERT INTO t2 VALUES (2, '{MOON}')"))
        .await;
    fleet.scene.wait_for_vectors("t2", "body").await;
}

/// A job becomes another one while two daemons look on: one of them ends the old one, and one runs the new one.
#[tokio::test]
async fn a_job_that_becomes_another_one_is_replaced_once() {
    let fleet = Fleet::of_two(2, "1 1").await;
    fleet
        .scene
        .sql("CREATE TABLE other (LIKE t1 INCLUDING ALL); UPDATE jobs SET \"table\" = 'other' WHERE id = 1")
        .await;
    fleet
        .scene
        .sql(&format!("INSERT INTO other VALUES (1, '{MOON}')"))
        .await;
    fleet.scene.wait_for_vectors("other", "body").await;
    fleet
        .scene
        .wait_for("SELECT count(*) FROM pg_publication", "2")
        .await;
    fleet.wait_for_streams(2).await;
    fleet.wait_for_loads("1 1").await;
}
