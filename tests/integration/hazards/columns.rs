//! Columns and tables that are renamed, retyped or dropped under a running job.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::wait::TIMEOUT;

use crate::support::{notes_scene, scene_with};

/// Hazards 8 and 12. The type of a column in the column list of a publication cannot be changed, so the owner cancels
/// the job meanwhile. Versions before 15 have no column lists.
#[tokio::test]
async fn columns_are_retyped_while_the_job_is_canceled() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    let retype = "ALTER TABLE notes ALTER id TYPE bigint, ALTER body TYPE varchar(9000)";
    let refused = scene.client.batch_execute(retype).await;
    let lists = scene
        .value("SELECT current_setting('server_version_num')::int >= 150000")
        .await;
    assert_eq!(refused.is_err().to_string(), lists);

    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    scene.sql(retype).await;
    scene.put(1, MOON).await;
    scene.sql("UPDATE jobs SET canceled_at = NULL").await;
    scene.wait_for_backfill().await;
    let large = "INSERT INTO notes (id, body) VALUES (5000000000, $1)";
    scene.execute(large, &[&TIDES]).await;
    scene.caught_up().await;
}

/// Hazard 12. Without a column list the types can be changed at any time, and the job follows them.
#[tokio::test]
async fn a_source_and_a_key_of_other_types_are_still_followed() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, body varchar(200), embedding vector(384)); \
                 ALTER TABLE notes REPLICA IDENTITY FULL";
    let mut scene = scene_with(notes).await;
    scene.job("notes", "body").await;
    scene.write(&[TIDES, MOON]).await;
    scene.start_daemon().await;
    scene.sql("ALTER TABLE notes ALTER body TYPE text").await;
    scene.put(1, CAVES).await;
    scene.caught_up().await;
    scene.sql("ALTER TABLE notes ALTER id TYPE bigint").await;
    scene.put(2, DESERT).await;
    scene.wait_for_vectors("notes", "body").await;
    // The job has seen the new type when it can write beyond the old one.
    scene
        .daemon()
        .wait_for_line("has another type now", TIMEOUT)
        .await;
    let large = "INSERT INTO notes (id, body) VALUES (5000000000, $1)";
    scene.execute(large, &[&TIDES]).await;
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_for_backfill().await;
    scene.caught_up().await;
}

/// Hazard 12.
#[tokio::test]
async fn a_destination_that_can_no_longer_hold_the_vectors_fails_the_job() {
    let mut scene = notes_scene().await;
    if scene.database.skips_vector() {
        return;
    }
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE notes ALTER embedding TYPE vector(3) USING NULL")
        .await;
    scene.put(1, TIDES).await;
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("384") && reason.contains("\"notes\""),
        "{reason}"
    );
    scene.wait_for_cleanup().await;

    scene
        .sql("ALTER TABLE notes ALTER embedding TYPE vector(384) USING NULL; UPDATE jobs SET init_failed_at = NULL")
        .await;
    scene.wait_for_vectors("notes", "body").await;
}

/// Hazard 12. A destination of another type that can hold them is written as before.
#[tokio::test]
async fn a_destination_of_another_type_is_still_written() {
    let mut scene = notes_scene().await;
    if scene.database.skips_vector() {
        return;
    }
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE notes ALTER embedding TYPE halfvec(384)")
        .await;
    scene.put(2, MOON).await;
    let halves = "SELECT count(*) FROM notes JOIN truth USING (body) WHERE embedding::vector <-> vector < 0.01";
    scene.wait_for(halves, "2").await;
    assert_eq!(
        scene.value("SELECT init_failure_reason FROM jobs").await,
        ""
    );
}

/// Hazard 12. Each name that the job knows, renamed under it, fails the job with that name, and it goes on with the new
/// one.
#[tokio::test]
async fn a_renamed_key_destination_or_table_fails_the_job_with_its_name() {
    let cases = [
        ("ALTER TABLE notes RENAME COLUMN id TO number", "\"id\"", ""),
        (
            "ALTER TABLE notes RENAME COLUMN embedding TO meaning",
            "embedding",
            "dst_column = 'meaning', ",
        ),
        (
            "ALTER TABLE notes RENAME TO papers",
            "\"notes\"",
            "\"table\" = 'papers', ",
        ),
    ];
    for (rename, name, mend) in cases {
        let mut scene = notes_scene().await;
        scene.put(1, TIDES).await;
        scene.start_daemon().await;
        scene.sql(rename).await;
        let table = scene
            .value("SELECT relname FROM pg_class WHERE relname IN ('notes', 'papers')")
            .await;
        let update = format!("UPDATE {table} SET body = $1");
        scene.execute(&update, &[&MOON]).await;
        let reason = scene.wait_for_failure().await;
        assert!(reason.contains(name), "{rename}: {reason}");
        scene.wait_for_cleanup().await;
        scene
            .sql(&format!("UPDATE jobs SET {mend} init_failed_at = NULL"))
            .await;
        let destination = if mend.contains("meaning") {
            "meaning"
        } else {
            "embedding"
        };
        let right = format!(
            "SELECT count(*) FROM {table} JOIN truth USING (body) WHERE {destination} <-> vector < 0.001"
        );
        scene.wait_for(&right, "1").await;
    }
}

#[tokio::test]
async fn a_key_that_is_renamed_while_nothing_is_written_fails_the_job_with_both_names() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene
        .sql("ALTER TABLE notes RENAME COLUMN id TO number")
        .await;
    let reason = scene.wait_for_failure().await;
    let both = "the key of \"public\".\"notes\" was (\"id\") and is (\"number\") now";
    assert!(reason.contains(both), "{reason}");
    scene.wait_for_cleanup().await;
    scene.sql("UPDATE jobs SET init_failed_at = NULL").await;
    scene.wait_for_backfill().await;
    scene
        .sql("INSERT INTO notes (number, body) VALUES (2, 'more')")
        .await;
    scene
        .wait_for("SELECT count(embedding) FROM notes", "2")
        .await;
}

/// Hazards 12 and 36. It may be created again, as by a nightly load.
#[tokio::test]
async fn a_dropped_table_is_waited_for_and_leaves_nothing_behind() {
    let mut scene = notes_scene().await;
    scene.put(1, TIDES).await;
    scene.start_daemon().await;
    scene.sql("DROP TABLE notes").await;
    let line = scene.daemon().wait_for_line("WARN", TIMEOUT).await;
    assert!(line.contains("notes"), "{line}");
    scene.wait_for_cleanup().await;
    assert_eq!(scene.failures().await, "");
}
