//! Jobs that end while several daemons share the jobs table.

use testkit::client::execute;
use testkit::scene::MOON;

use super::{Fleet, TIDES};

#[tokio::test]
async fn canceled_and_deleted_jobs_leave_nothing_and_a_resumed_job_runs_once() {
    let fleet = Fleet::of_two(4, "2 2").await;
    fleet
        .scene
        .sql("UPDATE jobs SET canceled_at = true WHERE id <= 2; DELETE FROM jobs WHERE id > 2")
        .await;
    fleet.scene.wait_for_cleanup().await;
    fleet.wait_for_loads("").await;
    fleet.scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    fleet.wait_for_loads("1 1").await;
    // The jobs table shows the end of the first backfill until then.
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

/// The daemon that runs the job dies; another one that sees the job end cleans up.
#[tokio::test]
async fn a_canceled_job_is_cleaned_up_by_another_daemon_when_its_own_dies() {
    let mut fleet = Fleet::of_two(2, "1 1").await;
    // The row is locked, so that neither daemon can read on; then one dies, and the other finds the job canceled.
    let block = "BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE; UPDATE jobs SET canceled_at = true WHERE id = 1";
    let blocker = fleet.scene.session(block).await;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass";
    fleet.scene.wait_for(waiting, "2").await;
    let holds_first = fleet.daemons[0].log().contains("job=1: streaming");
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

/// The definition of a job changes: one of two daemons stops the old job, and one runs the new one.
#[tokio::test]
async fn a_job_with_a_new_definition_is_replaced_once() {
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
