//! Daemons, slots and publications that disappear without warning.

use testkit::scene::DESERT;
use testkit::wait::{TIMEOUT, wait_for};

use super::*;

#[tokio::test]
async fn a_killed_daemon_resumes_at_the_confirmed_position() {
    let mut scene = streaming().await;
    for round in 0..3 {
        put(&scene, 10 + round, DESERT).await;
        scene.kill_daemon();
        put(&scene, 1, [NEW_TEXT, MOON, TIDES][round as usize]).await;
        scene.sql("UPDATE pair SET title = NULL WHERE id = 2").await;
        scene.spawn_daemon_with(SHARED);
        wait_for_all_vectors(&scene).await;
        caught_up(&scene).await;
        assert_eq!(scans_again(scene.daemon()), 0, "nothing is scanned again");
        put(&scene, 2, TIDES).await;
    }
    wait_for_all_vectors(&scene).await;
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn an_orderly_restart_embeds_nothing_again() {
    let mut scene = streaming().await;
    let versions = "SELECT string_agg(t, ' ') FROM (SELECT id || xmin::text AS t FROM plain UNION ALL SELECT id || xmin::text FROM pair) AS v";
    let before = scene.value(versions).await;
    scene.stop_daemon().await;
    scene.spawn_daemon_with(SHARED);
    wait_until_ready(&scene).await;
    scene.put_into("parts", 1, DESERT).await;
    scene.wait_for_vectors("parts", "body").await;
    assert_eq!(scene.value(versions).await, before);
}

/// The slot is dropped by hand: the continuity of every job is broken.
#[tokio::test]
async fn a_slot_dropped_by_hand_loses_no_update() {
    let mut scene = streaming().await;
    scene.stop_daemon().await;
    scene.drop_slots().await;
    put(&scene, 1, NEW_TEXT).await;
    scene.sql("UPDATE plain SET body = NULL WHERE id = 2").await;
    start(&mut scene).await;
    wait_for_all_vectors(&scene).await;
    // A job whose rows are all right may begin its scan last.
    let daemon = scene.daemon();
    wait_for("each job scans", TIMEOUT, 5, async || scans(daemon)).await;
    caught_up(&scene).await;
    assert_eq!(scans(scene.daemon()), 5, "and none scans twice");
}

#[tokio::test]
async fn a_publication_dropped_while_the_daemon_streams_loses_nothing() {
    let scene = streaming().await;
    scene.drop_publication().await;
    put(&scene, 1, NEW_TEXT).await;
    put(&scene, 3, DESERT).await;
    wait_for_all_vectors(&scene).await;
    wait_until_ready(&scene).await;
    put(&scene, 4, MOON).await;
    wait_for_all_vectors(&scene).await;
    caught_up(&scene).await;
}

/// The walsender is terminated: all jobs reconnect.
#[tokio::test]
async fn a_lost_connection_is_reopened_for_all_jobs() {
    let scene = streaming().await;
    for _ in 0..3 {
        scene
            .sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()")
            .await;
        put(&scene, 1, NEW_TEXT).await;
        put(&scene, 1, MOON).await;
        wait_for_all_vectors(&scene).await;
    }
    caught_up(&scene).await;
    assert_eq!(scene.failures().await, "");
}

/// The definition changes while no daemon runs: the new job must not use the position of the old one.
#[tokio::test]
async fn a_definition_that_changed_while_no_daemon_ran_is_a_new_job() {
    let mut scene = streaming().await;
    scene.stop_daemon().await;
    scene
        .sql("ALTER TABLE plain ADD COLUMN other vector(384); UPDATE jobs SET dst_column = 'other' WHERE \"table\" = 'plain'; \
              DELETE FROM jobs WHERE \"table\" = 'whole'")
        .await;
    put(&scene, 3, NEW_TEXT).await;
    start(&mut scene).await;
    let wrong = "SELECT count(*) FROM plain JOIN truth USING (body) WHERE (plain.other <-> truth.vector < 0.001) IS NOT TRUE";
    scene.wait_for(wrong, "0").await;
    scene.wait_for(PUBLISHED, "pair parts plain").await;
    scene.wait_until_confirmed().await;
}
