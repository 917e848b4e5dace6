//! Databases that are rarely on the same machine.

use std::time::Duration;

use testkit::jobs::{Job, insert_job};
use testkit::scene::{DESERT, LONG, NOTES, VOCABULARY};
use testkit::slow_link::Conditions;
use testkit::{Scene, SlowLink, server};

use crate::support::scene_with;

/// A job whose daemon reaches the database over this link; the jobs table is near.
async fn behind(conditions: Conditions) -> Scene {
    let scene = scene_with(NOTES).await;
    let link = SlowLink::before(server::shared().port(), conditions).await;
    let uri = link.through(&scene.database.uri());
    insert_job(&scene.client, Job::at(uri, "notes", "body", "embedding")).await;
    scene
}

/// Rows with the texts of the vocabulary, in turn.
async fn fill(scene: &Scene, rows: i32) {
    let insert = "INSERT INTO notes (id, body) SELECT n, ($2::text[])[1 + n % 5] FROM generate_series(1, $1) AS n";
    let short: Vec<&str> = VOCABULARY[..5].to_vec();
    scene.execute(insert, &[&rows, &short]).await;
}

/// Both the backfill and the changes get through, and no attempt is interrupted on the way.
async fn existing_and_new_rows_get_their_vectors(conditions: Conditions, rows: i32) {
    let mut scene = behind(conditions).await;
    fill(&scene, rows).await;
    scene.start_daemon().await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    scene
        .sql("UPDATE notes SET body = (SELECT body FROM truth LIMIT 1)")
        .await;
    scene.put(3, DESERT).await;
    scene.caught_up().await;
    let log = scene.daemon().log();
    assert!(!log.contains("interrupted"), "{log}");
}

#[tokio::test]
async fn a_link_of_1_mbit_per_second_carries_all_rows() {
    existing_and_new_rows_get_their_vectors(Conditions::new(1, 20), 300).await;
}

#[tokio::test]
async fn a_link_of_10_mbit_per_second_carries_all_rows() {
    existing_and_new_rows_get_their_vectors(Conditions::new(10, 1), 1200).await;
}

#[tokio::test]
async fn a_round_trip_of_200_ms_delays_rows_and_stops_none() {
    existing_and_new_rows_get_their_vectors(Conditions::new(100, 200), 600).await;
}

#[tokio::test]
async fn a_link_that_stalls_carries_all_rows() {
    let stalls = Some((300_000, Duration::from_millis(900)));
    let conditions = Conditions {
        stalls,
        ..Conditions::new(10, 50)
    };
    existing_and_new_rows_get_their_vectors(conditions, 600).await;
}

/// A text travels with its write-back, as the guard, for longer than any limit of a waiting transaction.
#[tokio::test]
async fn rows_behind_a_long_text_get_their_vectors() {
    for (conditions, megabytes) in [(Conditions::new(10, 20), 1), (Conditions::new(100, 2), 6)] {
        let mut scene = behind(conditions).await;
        scene.start_daemon().await;
        // The model reads the beginning of a long text only.
        let insert = "INSERT INTO notes (id, body) VALUES (0, repeat($1, $2))";
        let times = megabytes * 1_000_000 / LONG.len() as i32;
        scene.execute(insert, &[&*LONG, &times]).await;
        fill(&scene, 40).await;
        let long = "SELECT embedding <-> (SELECT vector FROM truth WHERE body = notes_0.start) < 0.001 \
                    FROM (SELECT *, left(body, $n) AS start FROM notes WHERE id = 0) AS notes_0";
        let long = long.replace("$n", &LONG.len().to_string());
        scene.wait_until_confirmed().await;
        assert_eq!(scene.value(&long).await, "true");
        scene.sql("DELETE FROM notes WHERE id = 0").await;
        assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    }
}

/// The server has all of a write-back before it locks a row.
#[tokio::test]
async fn users_do_not_wait_for_a_slow_link() {
    let mut scene = behind(Conditions::new(5, 20)).await;
    fill(&scene, 600).await;
    // Of the daemon's own limits, 300 ms for DDL is the longest.
    let user = scene.session("SET lock_timeout = '400ms'").await;
    scene.spawn_daemon();
    let finished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NOT NULL";
    let mut row = 0;
    while scene.value(finished).await != "1" {
        row = row % 600 + 1;
        let update = "UPDATE notes SET views = views + 1 WHERE id = $1";
        user.execute(update, &[&row])
            .await
            .unwrap_or_else(|error| panic!("a user had to wait: {error:?}"));
        // Each update comes over the link, with the whole row on PostgreSQL 14. Leave room for the write-backs.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.caught_up().await;
}
