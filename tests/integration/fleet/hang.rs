//! A daemon that hangs with all its connections open, and continues after the others have taken its jobs over.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::scene::{CAVES, MOON};
use testkit::wait::{TIMEOUT, wait_until};

use super::Fleet;

const GONE: &str = "another daemon has taken this job over";

#[tokio::test]
async fn the_jobs_of_a_hung_daemon_are_taken_over_until_it_is_back() {
    let fleet = Fleet::of_two(6, "3 3").await;
    fleet.daemons[0].signal(Signal::SIGSTOP);
    fleet.put(2, MOON).await;
    fleet.wait_for_vectors().await;
    fleet.wait_for_loads("6").await;
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");
    let said = "its session was ended, and its jobs are taken over";
    fleet.daemons[1].wait_for_line(said, TIMEOUT).await;

    fleet.each_job_has_one_writer().await;

    fleet.daemons[0].signal(Signal::SIGCONT);
    fleet.daemons[0].wait_for_line(GONE, TIMEOUT).await;
    fleet.wait_for_loads("3 3").await;
    fleet.put(3, CAVES).await;
    fleet.wait_for_vectors().await;
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(fleet.not_written(1).await, "");
    assert_eq!(fleet.scene.failures().await, "");
}

/// The other daemon does what the hung one was working on, and the hung one does not repeat it when it continues.
#[tokio::test]
async fn a_resumed_daemon_does_not_repeat_the_writes_of_another() {
    let fleet = Fleet::of(1).await;
    // Slow enough to be stopped in the midst, in small batches, since the server goes on with those that it has.
    fleet
        .scene
        .sql("ALTER TABLE jobs ADD batch_size INT DEFAULT 32; \
              CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.003); RETURN NEW; END'; \
              CREATE TRIGGER rest BEFORE UPDATE OF embedding ON t1 FOR EACH ROW EXECUTE FUNCTION rest()")
        .await;
    let fleet = fleet.with_two("1").await;
    let holder = usize::from(!fleet.daemons[0].log().contains("listening for changes"));
    let rows = "INSERT INTO t1 SELECT n, (SELECT body FROM truth ORDER BY body OFFSET n % 4 LIMIT 1) \
                FROM generate_series(1000, 1800) AS n";
    fleet.scene.sql(rows).await;
    let written = async || -> usize {
        let count = fleet.scene.value("SELECT count(*) FROM writes").await;
        count.parse().expect("a number")
    };
    wait_until(
        "the daemon is in the middle of it",
        TIMEOUT,
        async || match written().await {
            n if n > 100 => Ok(()),
            n => Err(n),
        },
    )
    .await;
    fleet.daemons[holder].signal(Signal::SIGSTOP);
    let stopped_at = written().await;
    assert!(
        stopped_at < 801,
        "the daemon had written everything before it was stopped"
    );
    fleet.wait_for_vectors().await;
    fleet.scene.wait_until_confirmed().await;
    let done = written().await;

    fleet.daemons[holder].signal(Signal::SIGCONT);
    fleet.daemons[holder].wait_for_line(GONE, TIMEOUT).await;
    fleet.put(2, CAVES).await;
    fleet.wait_for_vectors().await;
    fleet.scene.wait_until_confirmed().await;
    assert_eq!(written().await, done + 1, "only the new row was written");
    // At most, what was written but not yet confirmed when the daemon hung was written again.
    assert!(
        done <= 802 + 256,
        "{done} writes for 802 rows, {stopped_at} of them by the first"
    );
}

/// A daemon that is busy embedding still renews its presence in time.
#[tokio::test]
async fn a_busy_daemon_is_not_declared_dead() {
    let fleet = Fleet::of_two(2, "1 1").await;
    let rows = |table: &str| {
        format!(
            "INSERT INTO {table} SELECT n, (SELECT body FROM truth ORDER BY length(body) DESC LIMIT 1) FROM generate_series(1001, 1040) AS n"
        )
    };
    let begin = Instant::now();
    let mut longest = 0.0_f64;
    for table in fleet.tables() {
        fleet.scene.sql(&rows(&table)).await;
    }
    let silence = "SELECT COALESCE(max(EXTRACT(EPOCH FROM clock_timestamp() - state_change)), 0)::float8 FROM pg_stat_activity \
                   WHERE application_name = 'lantern-cli: jobs' AND datname = current_database()";
    let behind = "SELECT count(*) > 0 FROM (SELECT embedding FROM t1 UNION ALL SELECT embedding FROM t2) AS t WHERE embedding IS NULL";
    while fleet.scene.value(behind).await == "true" && begin.elapsed() < TIMEOUT {
        let seen: f64 = fleet.scene.value(silence).await.parse().expect("seconds");
        longest = longest.max(seen);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "never silent for more than {longest:.2} s while embedding for {:?}",
        begin.elapsed()
    );
    fleet.wait_for_vectors().await;
    for daemon in &fleet.daemons {
        let log = daemon.log();
        assert!(!log.contains("has not responded"), "{log}");
    }
}
