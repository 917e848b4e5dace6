//! People replace a table that a job follows: they swap it for a new one, or drop it and load it again.

use std::time::Duration;

use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, NOTES, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::scene_with;

const SLOT_MODES: [&[&str]; 2] = [&[], &["--slots", "database"]];

/// A new table beside `notes`, with rows of its own.
const NEW_NOTES: &str = "CREATE TABLE notes_new (LIKE notes INCLUDING ALL); \
    INSERT INTO notes_new (id, body) SELECT row_number() OVER () + 100, body FROM truth";

const SWAP: &str =
    "BEGIN; ALTER TABLE notes RENAME TO notes_old; ALTER TABLE notes_new RENAME TO notes; COMMIT";

/// A scene whose daemon streams for a job on `notes`.
async fn followed_notes(arguments: &[&str]) -> Scene {
    let mut scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON]).await;
    scene.spawn_daemon_with(arguments);
    scene.wait_for_vectors("notes", "body").await;
    scene.caught_up().await;
    scene
}

/// The job follows the table that is called `notes` now.
async fn is_followed(scene: &Scene) {
    scene.put(1000, CAVES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.put(1000, DESERT).await;
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.failures().await, "");
}

/// The job waits for the key of the new table, which has no column for the vectors yet.
async fn is_followed_once_it_has_a_key(scene: &mut Scene) {
    scene
        .daemon()
        .wait_for_line("has no usable key", TIMEOUT)
        .await;
    scene.sql("ALTER TABLE notes ADD PRIMARY KEY (id)").await;
    let column = "SELECT count(*) FROM pg_attribute WHERE attname = 'embedding' AND attrelid = 'notes'::regclass";
    scene.wait_for(column, "1").await;
    is_followed(scene).await;
}

/// Hazard 36. estuary/connectors #2279, crate PR #18098: the contents of a table are replaced without a sound.
#[tokio::test]
async fn a_table_that_is_swapped_by_rename_is_followed() {
    for arguments in SLOT_MODES {
        let mut scene = followed_notes(arguments).await;
        scene.sql(NEW_NOTES).await;
        scene.sql(SWAP).await;
        scene.wait_for_vectors("notes", "body").await;
        is_followed(&scene).await;
        // A change of the old table, whose advice once led to it.
        scene.sql("UPDATE notes_old SET views = views + 1").await;
        scene.put(1001, MOON).await;
        scene.wait_for_vectors("notes", "body").await;
        assert!(!scene.daemon().log().contains("correct schema and"));
        // And back.
        let back = "BEGIN; ALTER TABLE notes RENAME TO notes_new; ALTER TABLE notes_old RENAME TO notes; \
                    UPDATE notes SET body = NULL WHERE id = 2; COMMIT";
        scene.sql(back).await;
        is_followed(&scene).await;
    }
}

/// Hazard 36.
#[tokio::test]
async fn a_table_that_is_swapped_while_the_daemon_is_stopped_is_followed() {
    for arguments in SLOT_MODES {
        let mut scene = followed_notes(arguments).await;
        scene.stop_daemon().await;
        scene.sql(NEW_NOTES).await;
        scene.sql(SWAP).await;
        scene.spawn_daemon_with(arguments);
        is_followed(&scene).await;
    }
}

/// Hazard 36.
#[tokio::test]
async fn a_table_whose_schema_is_swapped_is_followed() {
    for arguments in SLOT_MODES {
        let mut scene = scene_with("CREATE SCHEMA live; CREATE SCHEMA staging").await;
        for schema in ["live", "staging"] {
            let create = NOTES.replace("notes", &format!("{schema}.notes"));
            scene.sql(&create).await;
        }
        scene.job("notes", "body").await;
        scene.sql("UPDATE jobs SET schema = 'live'").await;
        scene.put_into("live.notes", 1, TIDES).await;
        scene.spawn_daemon_with(arguments);
        scene.wait_for_vectors("live.notes", "body").await;
        scene.put_into("staging.notes", 2, MOON).await;
        scene
            .sql("BEGIN; ALTER SCHEMA live RENAME TO old; ALTER SCHEMA staging RENAME TO live; COMMIT")
            .await;
        scene.wait_for_vectors("live.notes", "body").await;
        scene.put_into("live.notes", 3, CAVES).await;
        scene.wait_for_vectors("live.notes", "body").await;
        assert_eq!(scene.failures().await, "");
    }
}

/// Hazard 36. The schema goes with the table, and both come back.
#[tokio::test]
async fn a_table_whose_schema_is_dropped_and_created_later_is_waited_for() {
    let create = format!(
        "CREATE SCHEMA live; {}",
        NOTES.replace("notes", "live.notes")
    );
    let mut scene = scene_with(&create).await;
    scene.job("notes", "body").await;
    scene.sql("UPDATE jobs SET schema = 'live'").await;
    scene.put_into("live.notes", 1, TIDES).await;
    scene.spawn_daemon();
    scene.wait_for_vectors("live.notes", "body").await;
    scene.wait_for_backfill().await;
    scene.sql("DROP SCHEMA live CASCADE").await;
    scene.daemon().wait_for_line("waits for", TIMEOUT).await;
    scene.sql(&create).await;
    scene.put_into("live.notes", 1, MOON).await;
    scene.wait_for_vectors("live.notes", "body").await;
    assert_eq!(scene.failures().await, "");
}

/// Hazard 36. In two transactions there is a moment without a table of that name.
#[tokio::test]
async fn a_table_that_is_swapped_in_two_steps_is_followed() {
    for arguments in SLOT_MODES {
        let scene = followed_notes(arguments).await;
        scene.sql(NEW_NOTES).await;
        scene.sql("ALTER TABLE notes RENAME TO notes_old").await;
        // The daemon notices this within a second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.sql("ALTER TABLE notes_new RENAME TO notes").await;
        is_followed(&scene).await;
    }
}

/// Hazard 36. pandas-dev/pandas #32933, MaterializeInc/materialize #18519: loads that drop the table and create it again.
#[tokio::test]
async fn a_table_that_is_dropped_and_created_later_is_waited_for() {
    for arguments in SLOT_MODES {
        let mut scene = followed_notes(arguments).await;
        scene.sql("DROP TABLE notes").await;
        let line = scene.daemon().wait_for_line("waits for a", TIMEOUT).await;
        assert!(line.contains("WARN") && line.contains("notes"), "{line}");
        // Nothing retains WAL meanwhile.
        scene.wait_for_cleanup().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.failures().await, "");
        scene.sql(NOTES).await;
        is_followed(&scene).await;
        let log = scene.daemon().log();
        let waits = log.lines().filter(|line| line.contains("retrying in"));
        assert!(waits.count() <= 2, "it is said once: {log}");
    }
}

/// Hazard 36. Also where the daemon is started meanwhile.
#[tokio::test]
async fn a_table_that_is_missing_when_the_daemon_starts_is_waited_for() {
    for arguments in SLOT_MODES {
        let mut scene = followed_notes(arguments).await;
        scene.stop_daemon().await;
        scene.sql("DROP TABLE notes").await;
        scene.spawn_daemon_with(arguments);
        scene.daemon().wait_for_line("waits for", TIMEOUT).await;
        scene.wait_for_cleanup().await;
        // Without the destination, which the job creates.
        scene
            .sql("CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0)")
            .await;
        let column = "SELECT count(*) FROM pg_attribute WHERE attname = 'embedding' AND attrelid = 'notes'::regclass";
        scene.wait_for(column, "1").await;
        is_followed(&scene).await;
    }
}

/// Hazard 36. A load in steps: the key comes after the rows.
#[tokio::test]
async fn a_new_table_that_gets_its_key_later_is_followed() {
    let mut scene = followed_notes(&[]).await;
    scene
        .sql("DROP TABLE notes; CREATE TABLE notes AS SELECT 1 AS id, body, 0 AS views FROM truth LIMIT 1")
        .await;
    is_followed_once_it_has_a_key(&mut scene).await;
}

/// Hazard 36. As above, where the job's sessions end before the daemon has seen that the table was replaced.
#[tokio::test]
async fn a_new_table_that_the_next_attempt_meets_may_get_its_key_later() {
    let mut scene = followed_notes(&[]).await;
    scene
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name LIKE 'lantern%' AND datname = current_database() AND query NOT LIKE '%jobs%'; \
             DROP TABLE notes; CREATE TABLE notes AS SELECT 1 AS id, body, 0 AS views FROM truth LIMIT 1",
        )
        .await;
    is_followed_once_it_has_a_key(&mut scene).await;
}

/// Hazard 36. What is missing for good is for a person, as at the first start.
#[tokio::test]
async fn a_new_table_that_does_not_fit_fails_the_job_with_the_remedy() {
    for (table, words) in [
        ("CREATE TABLE notes (id int, body text)", "ADD PRIMARY KEY"),
        (
            "CREATE TABLE notes (id int PRIMARY KEY, text text)",
            "src_column",
        ),
        ("CREATE VIEW notes AS SELECT 1 AS id", "is a view"),
    ] {
        let scene = followed_notes(&[]).await;
        scene.sql("DROP TABLE notes").await;
        scene.sql(table).await;
        let reason = scene.wait_for_failure().await;
        assert!(reason.contains(words), "{reason}");
        scene.wait_for_cleanup().await;
    }
}

/// Hazard 36. A job that has never had its table was given the wrong name.
#[tokio::test]
async fn a_job_that_never_had_its_table_fails_at_once() {
    let mut scene = scene_with("CREATE TABLE others (id int)").await;
    scene.job("notes", "body").await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(reason.contains("there is no table"), "{reason}");
    scene.wait_for_cleanup().await;
}

/// Hazard 36. The other jobs of a shared slot do not notice.
#[tokio::test]
async fn a_job_that_waits_for_its_table_holds_up_no_other() {
    let mut scene = scene_with(&format!("{NOTES}; {}", NOTES.replace("notes", "others"))).await;
    scene.job("notes", "body").await;
    scene.job("others", "body").await;
    scene.spawn_daemon_with(&["--slots", "database"]);
    scene.put(1, TIDES).await;
    scene.put_into("others", 1, TIDES).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_vectors("others", "body").await;
    scene.sql("DROP TABLE notes").await;
    scene.daemon().wait_for_line("waits for", TIMEOUT).await;
    scene.put_into("others", 1, MOON).await;
    scene.wait_for_vectors("others", "body").await;
    scene.wait_until_confirmed().await;
    scene.sql(NOTES).await;
    is_followed(&scene).await;
    scene.put_into("others", 1, CAVES).await;
    scene.wait_for_vectors("others", "body").await;
}

/// Hazard 36. The table goes while it is scanned and written.
#[tokio::test]
async fn a_table_that_is_replaced_while_it_is_scanned_is_followed() {
    let mut scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    let fill = "INSERT INTO notes (id, body) SELECT n, (SELECT min(body) FROM truth) FROM generate_series(1, 3000) n";
    scene.sql(fill).await;
    scene.spawn_daemon();
    scene
        .wait_for("SELECT count(embedding) > 0 FROM notes", "true")
        .await;
    for _ in 0..3 {
        scene.sql("DROP TABLE notes").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        scene.sql(NOTES).await;
        scene.sql(fill).await;
        scene
            .wait_for("SELECT count(embedding) > 0 FROM notes", "true")
            .await;
    }
    is_followed(&scene).await;
}
