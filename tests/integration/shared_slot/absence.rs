//! A job that leaves a shared slot for a while: the changes of its table are kept for it.

use testkit::client::execute;
use testkit::scene::DESERT;
use tokio_postgres::Client;

use super::*;
use crate::support::scene_with;

/// Takes the job of `plain` out of the stream while the returned session is open: its write-back session is terminated,
/// and its jobs row is locked, so that it cannot report that it restarts.
async fn keep_away(scene: &Scene) -> Client {
    let lock = scene
        .session("BEGIN; SELECT FROM jobs WHERE \"table\" = 'plain' FOR UPDATE")
        .await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity, jobs WHERE datname = current_database() \
               AND \"table\" = 'plain' AND application_name = 'lantern-cli: job ' || id || ' write-back'";
    assert_eq!(scene.value(end).await, "1");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND application_name = 'lantern-cli: jobs' AND wait_event_type = 'Lock'";
    scene.wait_for(waiting, "1").await;
    lock
}

/// Changes that only a stream from before them brings.
async fn change_everything(scene: &Scene) {
    put(scene, 1, NEW_TEXT).await;
    put(scene, 3, DESERT).await;
    scene
        .sql("UPDATE plain SET body = NULL WHERE id = 2; UPDATE plain SET id = 30 WHERE id = 3")
        .await;
}

async fn wait_for_others_vectors(scene: &Scene) {
    for table in ["pair", "parts", "whole"] {
        scene.wait_for_vectors(table, "body").await;
    }
    wait_for_second_vectors(scene).await;
}

#[tokio::test]
async fn changes_that_a_job_missed_are_sent_again_when_it_is_back() {
    let mut scene = streaming().await;
    let lock = keep_away(&scene).await;
    let before = scene.wal_end().await;
    change_everything(&scene).await;
    wait_for_others_vectors(&scene).await;
    // The daemon polls the members in the meantime, and the position could advance.
    for _ in 0..3 {
        scene.put_into("whole", 9, MOON).await;
        scene.put_into("whole", 9, TIDES).await;
        scene.wait_for_vectors("whole", "body").await;
    }
    let confirmed = format!(
        "SELECT confirmed_flush_lsn <= '{before}'::pg_lsn + 1000 FROM pg_replication_slots WHERE database = current_database()"
    );
    assert_eq!(
        scene.value(&confirmed).await,
        "true",
        "nothing is confirmed for a job that is away"
    );
    execute(&lock, "COMMIT").await;
    wait_for_all_vectors(&scene).await;
    caught_up(&scene).await;
    assert_eq!(
        scans(scene.daemon()),
        5,
        "from the stream, not from the table"
    );
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn a_crash_while_a_job_is_away_loses_nothing() {
    let mut scene = streaming().await;
    let lock = keep_away(&scene).await;
    change_everything(&scene).await;
    wait_for_others_vectors(&scene).await;
    scene.kill_daemon();
    execute(&lock, "COMMIT").await;
    start(&mut scene).await;
    wait_for_all_vectors(&scene).await;
    caught_up(&scene).await;
    assert_eq!(scans_again(scene.daemon()), 0);
}

/// A job that is canceled while it is away no longer holds back the position.
#[tokio::test]
async fn a_job_that_is_canceled_while_away_holds_back_nothing() {
    let scene = streaming().await;
    let lock = keep_away(&scene).await;
    change_everything(&scene).await;
    wait_for_others_vectors(&scene).await;
    execute(
        &lock,
        "UPDATE jobs SET canceled_at = true WHERE \"table\" = 'plain'; COMMIT",
    )
    .await;
    scene.wait_for(PUBLISHED, "pair parts whole").await;
    scene.wait_until_confirmed().await;
    scene.put_into("pair", 7, MOON).await;
    scene.wait_for_vectors("pair", "body").await;
}

/// A table is removed from the publication and added again while no daemon runs. The job that starts first repairs the
/// membership. The job that starts later must not take that for unbroken continuity: no stream holds the changes in
/// between.
#[tokio::test]
async fn repairing_the_publication_does_not_restore_the_continuity_of_a_job_that_is_away() {
    let mut scene = scene_with(TABLES).await;
    scene.job("pair", "body").await;
    start(&mut scene).await;
    let locks = "SELECT array_agg(classid::bigint << 32 | objid::bigint) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                 WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND a.datname = current_database() \
                   AND a.application_name = 'lantern-cli: jobs'";
    let others = scene.value(locks).await;
    second_job(&scene).await;
    let of_second = format!("SELECT k FROM unnest(({locks})) AS l(k) WHERE k <> ALL ('{others}')");
    scene
        .wait_for(&format!("SELECT count(*) FROM ({of_second}) AS s"), "1")
        .await;
    let lock = scene.value(&of_second).await;
    scene.put_into("pair", 1, TIDES).await;
    scene.sql("UPDATE pair SET title = body WHERE id = 1").await;
    wait_until_ready(&scene).await;
    wait_for_second_vectors(&scene).await;
    scene.stop_daemon().await;

    let elsewhere = scene
        .session(&format!("SELECT pg_advisory_lock({lock})"))
        .await;
    let alter = |what: &str| {
        format!(
            "DO $$ BEGIN EXECUTE (SELECT format('ALTER PUBLICATION %I {what} TABLE pair', pubname) FROM pg_publication); END $$"
        )
    };
    scene.sql(&alter("DROP")).await;
    scene
        .sql(&format!(
            "UPDATE pair SET body = '{NEW_TEXT}', title = '{DESERT}' WHERE id = 1"
        ))
        .await;
    scene.sql(&alter("ADD")).await;
    scene.spawn_daemon_with(SHARED);
    scene.wait_for_vectors("pair", "body").await;

    let unlock = format!("SELECT pg_advisory_unlock({lock})");
    execute(&elsewhere, &unlock).await;
    wait_for_second_vectors(&scene).await;
    assert_eq!(scene.failures().await, "");
}
