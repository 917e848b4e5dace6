//! Vectors that are not needed are not computed: of older texts of a row, and of a text whose vector is known.

use nix::sys::signal::Signal;
use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::notes_scene;

/// How many texts got vectors from the daemon, and how many vectors it computed for them.
async fn stop(mut scene: Scene) -> (u64, u64) {
    scene.daemon().signal(Signal::SIGTERM);
    let line = scene.daemon().wait_for_line("stopped; ", TIMEOUT).await;
    let counts = line.split_once("stopped; ").expect("the line").1;
    let numbers: Vec<u64> = counts
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!(numbers.len(), 2, "{line}");
    (numbers[0], numbers[1])
}

/// Updates of the rows 1 to 10, all in a moment: `drafts` each, and then their texts of `truth`.
async fn draft(scene: &Scene, drafts: u32) {
    scene
        .sql(&format!(
            "DO $$ BEGIN FOR draft IN 1..{drafts} LOOP \
               UPDATE notes SET body = format('draft %s of the note %s', draft, id) WHERE id <= 10; \
             END LOOP; END $$; \
             UPDATE notes SET body = (SELECT body FROM truth ORDER BY length(body) LIMIT 1 OFFSET id % 3) WHERE id <= 10"
        ))
        .await;
}

#[tokio::test]
async fn of_a_row_that_changes_many_times_the_newest_text_counts() {
    for replica_identity in ["DEFAULT", "FULL"] {
        let mut scene = notes_scene().await;
        scene
            .sql(&format!(
                "ALTER TABLE notes REPLICA IDENTITY {replica_identity}; \
                 INSERT INTO notes (id, body) SELECT n, '' FROM generate_series(1, 10) n"
            ))
            .await;
        scene.start_daemon().await;
        draft(&scene, 60).await;
        scene.caught_up().await;
        assert_eq!(scene.failures().await, "");
        let (embedded, computed) = stop(scene).await;
        assert!(computed < 200, "{computed} of {embedded} for 610 changes");
    }
}

#[tokio::test]
async fn a_row_that_ends_empty_or_under_another_key_is_right() {
    let mut scene = notes_scene().await;
    scene
        .sql("INSERT INTO notes (id, body) SELECT n, '' FROM generate_series(1, 10) n")
        .await;
    scene.start_daemon().await;
    for _ in 0..3 {
        draft(&scene, 20).await;
        // The last change of each row is of another kind: NULL, '', another key, another key and text, none.
        scene
            .sql("UPDATE notes SET body = NULL WHERE id IN (1, 2); UPDATE notes SET body = '' WHERE id = 3; \
                  UPDATE notes SET id = id + 100 WHERE id IN (4, 5)")
            .await;
        scene
            .execute(
                "UPDATE notes SET id = id + 100, body = $1 WHERE id IN (6, 7)",
                &[&DESERT],
            )
            .await;
        // Two rows exchange their keys, and a new one takes a key that became free.
        scene
            .sql("UPDATE notes SET id = -1 WHERE id = 8; UPDATE notes SET id = 8 WHERE id = 9; UPDATE notes SET id = 9 WHERE id = -1")
            .await;
        scene.put(4, CAVES).await;
        scene.caught_up().await;
        scene
            .sql("DELETE FROM notes; INSERT INTO notes (id, body) SELECT n, '' FROM generate_series(1, 10) n")
            .await;
    }
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn a_row_that_changes_while_it_is_scanned_is_right() {
    let mut scene = notes_scene().await;
    scene
        .sql("INSERT INTO notes (id, body) SELECT n, format('the old text of the note %s', n) FROM generate_series(1, 400) n")
        .await;
    scene.spawn_daemon();
    scene
        .wait_for("SELECT count(embedding) > 0 FROM notes", "true")
        .await;
    scene
        .execute(
            "UPDATE notes SET body = CASE id % 3 WHEN 0 THEN $1 WHEN 1 THEN $2 END",
            &[&TIDES, &MOON],
        )
        .await;
    scene.wait_for_backfill().await;
    scene.caught_up().await;
    let (embedded, computed) = stop(scene).await;
    assert!(computed < 402, "{computed} of {embedded}");
}

#[tokio::test]
async fn equal_texts_are_computed_once_for_all_jobs() {
    let mut scene = notes_scene().await;
    scene
        .sql("CREATE TABLE others (id int PRIMARY KEY, body text, embedding real[])")
        .await;
    scene
        .execute(
            "INSERT INTO others SELECT n, $1 FROM generate_series(1, 500) n",
            &[&TIDES],
        )
        .await;
    scene
        .execute(
            "INSERT INTO notes (id, body) SELECT n, $1 FROM generate_series(1, 500) n",
            &[&TIDES],
        )
        .await;
    scene.job("others", "body").await;
    scene.start_daemon().await;
    scene
        .execute(
            "INSERT INTO notes (id, body) SELECT n, CASE n % 2 WHEN 0 THEN $1 ELSE $2 END FROM generate_series(501, 1000) n",
            &[&TIDES, &MOON],
        )
        .await;
    scene.caught_up().await;
    scene
        .wait_for("SELECT count(embedding) FROM others", "500")
        .await;
    let (embedded, computed) = stop(scene).await;
    // A batch that the server refuses for a moment is embedded again.
    assert!(embedded >= 1500, "{embedded}");
    assert_eq!(computed, 2);
}

#[tokio::test]
async fn without_a_cache_only_texts_that_wait_together_are_computed_once() {
    let mut scene = notes_scene().await;
    scene.spawn_daemon_with(&["--cache-size", "0"]);
    scene.wait_for_backfill().await;
    scene.put(1, TIDES).await;
    scene.caught_up().await;
    scene.put(2, TIDES).await;
    scene.caught_up().await;
    let (embedded, computed) = stop(scene).await;
    assert_eq!((embedded, computed), (2, 2));
}
