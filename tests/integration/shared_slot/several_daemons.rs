//! A slot has one reader, so one daemon runs all jobs of a database.

use std::time::{Duration, Instant};

use testkit::scene::DESERT;

use super::*;
use crate::support::start_daemon;

/// How many jobs each daemon holds, in ascending order: their locks, without that of the shared slot.
const LOADS: &str = "SELECT string_agg(jobs::text, ' ' ORDER BY jobs) FROM ( \
    SELECT count(*) AS jobs FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' \
      AND l.objsubid = 1 AND l.granted AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs' GROUP BY l.pid) AS held";

#[tokio::test]
async fn a_second_daemon_takes_a_database_over() {
    let mut scene = streaming().await;
    let other = start_daemon(&scene.database, SHARED);
    other
        .wait_for_line(
            "another daemon runs this job; standing by",
            Duration::from_secs(60),
        )
        .await;
    // Five jobs and the slot.
    scene.wait_for(LOADS, "6").await;
    scene.put_into("late", 1, MOON).await;
    scene.job("late", "body").await;
    scene.wait_for_vectors("late", "body").await;
    // A backfill that is not noted as finished is repeated.
    wait_until_ready(&scene).await;
    scene.wait_for(LOADS, "7").await;

    let begin = Instant::now();
    scene.kill_daemon();
    put(&scene, 3, NEW_TEXT).await;
    wait_for_all_vectors(&scene).await;
    let took = begin.elapsed();
    println!("taken over within {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    scene.wait_for(LOADS, "7").await;
    caught_up(&scene).await;
    assert_eq!(scans_again(&other), 0, "from the confirmed position");
    assert_eq!(scene.failures().await, "");
}

/// Both modes at once would create two kinds of slots for the same jobs.
#[tokio::test]
async fn a_daemon_with_the_other_kind_of_slots_stands_by() {
    let mut scene = streaming().await;
    let other = start_daemon(&scene.database, &[]);
    other
        .wait_for_line("standing by until it has ended", Duration::from_secs(60))
        .await;
    put(&scene, 3, NEW_TEXT).await;
    wait_for_all_vectors(&scene).await;
    assert_eq!(scene.value(SLOTS).await, "1 slot, 1 read");
    scene.stop_daemon().await;
    put(&scene, 3, DESERT).await;
    wait_for_all_vectors(&scene).await;
    scene.wait_for(SLOTS, "5 slot, 5 read").await;
    scene
        .wait_for("SELECT count(*) FROM pg_publication", "5")
        .await;
}
