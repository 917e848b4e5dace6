//! The jobs table is renamed, moved or dropped: what had its name in the names of slots is left behind. Hazard 46.

use std::time::Duration;

use testkit::jobs::create_documented_table;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::notes_scene;

#[tokio::test]
async fn slots_of_the_old_name_are_reported_with_the_statement_that_drops_them() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    let old = scene
        .value("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
        .await;
    scene.sql("ALTER TABLE jobs RENAME TO embedding_jobs").await;
    let daemon = scene.spawn_daemon_with(&["--table", "embedding_jobs"]);
    let told = daemon.wait_for_line("is of no job in", TIMEOUT).await;
    for part in [
        "WARN",
        &old,
        "\"public\".\"embedding_jobs\"",
        &format!("SELECT pg_drop_replication_slot('{old}');"),
        &format!("DROP PUBLICATION IF EXISTS \"{old}\";"),
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // The job runs under its new name, and the statements do what they say.
    scene.put(1, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
    scene
        .sql(&format!(
            "SELECT pg_drop_replication_slot('{old}'); DROP PUBLICATION IF EXISTS \"{old}\""
        ))
        .await;
    scene.put(2, CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.stop_daemon().await;
    let daemon = scene.spawn_daemon_with(&["--table", "embedding_jobs"]);
    daemon.wait_for_line("streaming from", TIMEOUT).await;
    let log = daemon.log();
    assert!(!log.contains("is of no job in"), "{log}");
}

/// Named back, the table finds its slot again: nothing is embedded twice.
#[tokio::test]
async fn a_jobs_table_that_is_named_back_keeps_its_slots() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_until_confirmed().await;
    let versions = scene.row_versions().await;
    scene.sql("ALTER TABLE jobs RENAME TO embedding_jobs").await;
    let gone = "the jobs table \"public\".\"jobs\" is gone";
    let line = scene.daemon().wait_for_line(gone, TIMEOUT).await;
    assert!(
        line.contains("--table") && line.contains("Name it back"),
        "{line}"
    );
    // Jobs that run go on.
    scene.put(3, CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.sql("ALTER TABLE embedding_jobs RENAME TO jobs").await;
    let back = "the jobs table \"public\".\"jobs\" is back";
    scene.daemon().wait_for_line(back, TIMEOUT).await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    assert!(scene.row_versions().await.starts_with(&versions));
    let log = scene.daemon().log();
    assert_eq!(log.matches(gone).count(), 1, "{log}");
    assert_eq!(log.matches(back).count(), 1, "{log}");
}

/// Dropped and created again, it is another table, whose locks have other names: a second daemon and the first must
/// meet.
#[tokio::test]
async fn a_jobs_table_that_is_created_again_is_used_again() {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES]).await;
    scene.start_daemon().await;
    scene
        .sql("CREATE TABLE kept AS TABLE jobs; DROP TABLE jobs")
        .await;
    let gone = "the jobs table \"public\".\"jobs\" is gone";
    scene.daemon().wait_for_line(gone, TIMEOUT).await;
    create_documented_table(&scene.client).await;
    scene.sql("INSERT INTO jobs SELECT * FROM kept").await;
    let back = "the jobs table \"public\".\"jobs\" is back";
    scene.daemon().wait_for_line(back, TIMEOUT).await;
    scene.put(2, MOON).await;
    scene.wait_for_vectors("notes", "body").await;
    let standing_by = "another daemon runs this job; standing by";
    scene
        .spawn_daemon()
        .wait_for_line(standing_by, Duration::from_secs(30))
        .await;
}

/// A column that the daemon writes is dropped while it runs.
#[tokio::test]
async fn an_optional_column_may_be_dropped_while_a_daemon_runs() {
    let mut scene = notes_scene().await;
    scene
        .sql("ALTER TABLE jobs ADD last_error TEXT, ADD updated_at TIMESTAMP, ADD init_progress INT2, ADD batch_size \
        INT")
        .await;
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE jobs DROP last_error, DROP updated_at, DROP init_progress")
        .await;
    scene.sql("UPDATE jobs SET batch_size = 0").await;
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("batch_size"), "{reason}");
}
