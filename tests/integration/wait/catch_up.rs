//! `start-daemon --until-caught-up`.

use testkit::Scene;
use testkit::scene::{CAVES, MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::{notes_scene, program, scene_with};

/// Runs a daemon that ends by itself; returns its status and its log.
async fn work_off(scene: &Scene, more: &[&str]) -> (Option<i32>, String) {
    let uri = scene.database.uri();
    let arguments = [&["start-daemon", "--uri", &uri, "--until-caught-up"], more].concat();
    let output = program().run(&arguments).await;
    let log = String::from_utf8(output.stderr).expect("text");
    (output.status.code(), log)
}

#[tokio::test]
async fn everything_that_was_committed_is_embedded_at_the_end() {
    let scene = notes_scene().await;
    scene
        .sql(
            "INSERT INTO notes SELECT row_number() OVER (), body FROM truth, generate_series(1, 5)",
        )
        .await;
    let (status, log) = work_off(&scene, &[]).await;
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    assert_eq!(scene.leftovers().await, "1 publications, 1 slots");

    // The next run goes on from the slot: no row is scanned.
    scene.put(1, MOON).await;
    let (status, log) = work_off(&scene, &["--timeout", "90s"]).await;
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("existing rows to embed"), "{log}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");

    // And a run without work ends, too.
    let (status, log) = work_off(&scene, &["--slots", "job"]).await;
    assert!(
        status == Some(0) && log.contains("caught up: 1 job has"),
        "{log}"
    );
}

#[tokio::test]
async fn without_jobs_it_ends_at_once() {
    let scene = scene_with(NOTES).await;
    let (status, log) = work_off(&scene, &[]).await;
    assert!(
        status == Some(0) && log.contains("caught up: 0 jobs"),
        "{log}"
    );
}

#[tokio::test]
async fn with_one_slot_for_all_jobs_each_of_them_is_worked_off() {
    let scene = scene_with(&format!("{NOTES}; {}", NOTES.replace("notes", "pages"))).await;
    for table in ["notes", "pages"] {
        scene.job(table, "body").await;
        scene.put_into(table, 1, TIDES).await;
    }
    for text in [MOON, CAVES] {
        let (status, log) = work_off(&scene, &["--slots", "database"]).await;
        assert_eq!(status, Some(0), "{log}");
        for table in ["notes", "pages"] {
            assert_eq!(scene.wrong_vectors(table, "body").await, "");
            scene.put_into(table, 2, text).await;
        }
    }
}

#[tokio::test]
async fn a_job_that_has_failed_is_told_by_the_status_and_holds_up_no_other() {
    let scene = scene_with(&format!(
        "{NOTES}; CREATE TABLE keyless (id int, body text)"
    ))
    .await;
    scene.job("keyless", "body").await;
    scene.job("notes", "body").await;
    for text in [TIDES, MOON] {
        scene.put(1, text).await;
        let (status, log) = work_off(&scene, &[]).await;
        assert_eq!(status, Some(1), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(
            last.contains("not all of their rows are embedded: 1; see init_failure_reason"),
            "{last}"
        );
        assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    }
    assert_eq!(scene.leftovers().await, "1 publications, 1 slots");
}

#[tokio::test]
async fn quarantined_rows_are_told_and_do_not_count() {
    let scene = notes_scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene
        .sql("ALTER TABLE notes ADD CHECK (id <> 2 OR embedding IS NULL)")
        .await;
    let (status, log) = work_off(&scene, &[]).await;
    assert_eq!(status, Some(0), "{log}");
    assert!(
        log.contains("1 row could not be embedded or written; see \"public\".\"jobs_failures\""),
        "{log}"
    );
}

#[tokio::test]
async fn what_cannot_be_reached_ends_with_the_time_and_is_named() {
    let scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene
        .sql("INSERT INTO jobs (db_connection, \"table\", src_column, dst_column, embedding_model) \
              SELECT 'postgresql://nowhere.invalid/d', \"table\", src_column, dst_column, embedding_model FROM jobs")
        .await;
    let (status, log) = work_off(&scene, &["--timeout", "4s"]).await;
    assert_eq!(status, Some(4), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("unfinished jobs: "), "{last}");
    assert!(last.contains('2'), "{last}");
    let (status, log) = work_off(&scene, &["--timeout", "0s"]).await;
    assert_eq!(status, Some(4), "{log}");
    let uri = scene.database.uri();
    let output = program()
        .run(&["start-daemon", "--uri", &uri, "--timeout", "1s"])
        .await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn a_signal_before_the_end_shows_in_the_status() {
    let mut scene = notes_scene().await;
    let long = "x ".repeat(400);
    scene
        .sql(&format!(
            "INSERT INTO notes SELECT n, n || '{long}' FROM generate_series(1, 2000) n"
        ))
        .await;
    let daemon = scene.spawn_daemon_with(&["--until-caught-up"]);
    daemon
        .wait_for_line("existing rows to embed", TIMEOUT)
        .await;
    let (status, _) = daemon.terminate().await;
    assert_eq!(status.code(), Some(4), "{}", daemon.log());
    assert!(
        daemon.log().contains("unfinished jobs: 1;"),
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn jobs_of_another_daemon_are_not_waited_for() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    let (status, log) = work_off(&scene, &[]).await;
    assert!(
        status == Some(0) && log.contains("caught up: 0 jobs"),
        "{log}"
    );
    assert!(log.contains("another daemon runs this job"), "{log}");
    scene.put(1, TIDES).await;
    scene.caught_up().await;
}

#[tokio::test]
async fn what_canceled_jobs_have_left_is_removed_first() {
    let mut scene = notes_scene().await;
    scene.start_daemon().await;
    scene.kill_daemon();
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    let (status, log) = work_off(&scene, &[]).await;
    assert_eq!(status, Some(0), "{log}");
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");
}
