//! Jobs are distributed evenly, and move only when necessary.

use testkit::client::execute;
use testkit::scene::{CAVES, DESERT, MOON};

use super::{Fleet, TIDES};
use crate::support::start_daemon;

#[tokio::test]
async fn a_new_daemon_gets_its_share_of_jobs_and_returns_it_when_it_stops() {
    let mut fleet = Fleet::of(6).await;
    fleet.start_daemon();
    fleet.wait_for_loads("6").await;
    fleet.wait_for_streams(6).await;
    fleet.scene.wait_for_backfill().await;
    fleet.put(1, TIDES).await;
    fleet.wait_for_vectors().await;

    fleet.start_daemon();
    fleet.wait_for_loads("3 3").await;
    fleet.put(2, MOON).await;
    fleet.wait_for_vectors().await;
    fleet.wait_for_streams(6).await;

    fleet.start_daemon();
    fleet.wait_for_loads("2 2 2").await;
    fleet.put(3, CAVES).await;
    fleet.wait_for_vectors().await;
    fleet.wait_for_streams(6).await;

    let (status, _) = fleet.daemons.remove(0).terminate().await;
    assert!(status.success(), "{status}");
    fleet.wait_for_loads("3 3").await;
    fleet.put(4, DESERT).await;
    fleet.wait_for_vectors().await;
    fleet.scene.wait_until_confirmed().await;
    // Jobs are handed over at the confirmed position: nothing was written twice.
    assert_eq!(fleet.not_written(1).await, "");
    assert_eq!(fleet.scene.failures().await, "");
}

/// Once distributed, every job stays where it is.
#[tokio::test]
async fn an_uneven_distribution_of_jobs_is_stable() {
    let fleet = Fleet::of_two(5, "2 3").await;
    let before = fleet.walsenders().await;
    // A failed job belongs to no daemon and does not count.
    let looks = "INSERT INTO jobs (db_connection, schema, \"table\", src_column, dst_column, embedding_model) \
                 SELECT db_connection, schema, 'absent', src_column, dst_column, embedding_model FROM jobs LIMIT 1";
    for failed in 1..=3 {
        fleet.scene.sql(looks).await;
        let count = "SELECT count(*) FROM jobs WHERE init_failed_at IS NOT NULL";
        fleet.scene.wait_for(count, &failed.to_string()).await;
    }
    fleet.wait_for_loads("2 3").await;
    assert_eq!(fleet.walsenders().await, before);
    for daemon in &fleet.daemons {
        let log = daemon.log();
        assert!(log.matches("handing the job over").count() <= 3, "{log}");
    }
}

/// A session takes part like a daemon but takes no jobs, and does not count as dead, because it runs a statement. The
/// other daemon takes the jobs beyond its share, and does not hand them over to a daemon that does not take them.
#[tokio::test]
async fn jobs_that_a_live_daemon_does_not_take_are_taken_by_another() {
    let mut fleet = Fleet::without_jobs(2).await;
    fleet.join().await;
    let idle = fleet.scene.database.client().await;
    let join = "SELECT pg_advisory_lock_shared(half(classid), half(objid)) FROM pg_locks WHERE locktype = 'advisory' \
                AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    fleet
        .scene
        .sql(
            "CREATE FUNCTION half(oid) RETURNS int LANGUAGE sql AS \
             $$ SELECT ('x' || lpad(to_hex($1::bigint), 8, '0'))::bit(32)::int $$",
        )
        .await;
    execute(&idle, join).await;
    tokio::spawn(async move { idle.batch_execute("SELECT pg_sleep(3600)").await });
    for table in fleet.tables() {
        fleet.scene.job(&table, "body").await;
    }
    fleet.wait_for_loads("2").await;
    fleet.scene.wait_for_backfill().await;
    fleet.put(1, TIDES).await;
    fleet.wait_for_vectors().await;

    let settled = "SELECT min(clock_timestamp() - backend_start) > interval '6 s' FROM pg_stat_activity \
                   WHERE datname = current_database() AND backend_type = 'walsender' HAVING count(*) = 2";
    fleet
        .scene
        .wait_for(&format!("SELECT (({settled}))"), "true")
        .await;
    let log = fleet.daemons[0].log();
    assert!(!log.contains("handing the job over"), "{log}");
    assert_eq!(fleet.scene.failures().await, "");
}

/// Daemons with different labels do not share: each has its own jobs.
#[tokio::test]
async fn jobs_are_distributed_among_daemons_of_the_same_label() {
    let mut fleet = Fleet::of(4).await;
    fleet
        .scene
        .sql("ALTER TABLE jobs ADD COLUMN label text; UPDATE jobs SET label = CASE WHEN id <= 3 THEN 'a' ELSE 'b' END")
        .await;
    for label in ["a", "b"] {
        let daemon = start_daemon(&fleet.scene.database, &["--label", label]);
        fleet.daemons.push(daemon);
    }
    fleet.scene.wait_for_backfill().await;
    fleet.wait_for_loads("1 3").await;
    fleet.put(1, TIDES).await;
    fleet.wait_for_vectors().await;
    assert_eq!(fleet.not_written(1).await, "");
}
