//! The template or the columns that it names change: every vector is of the new texts, or the job says what is wrong.

use testkit::Scene;
use testkit::scene::{CAVES, TIDES};

use super::{COMPOSED, NOTES, TITLE_AND_BODY, caught_up, job, templated, templated_with};
use crate::support::scene_with;

const SLOT_MODES: [&[&str]; 2] = [&[], &["--slots", "database"]];

async fn write(scene: &Scene) {
    let insert = "INSERT INTO notes (id, title, body) VALUES (1, 'One', $1), (2, 'Two', $2)";
    scene.execute(insert, &[&TIDES, &CAVES]).await;
}

/// Waits until the job runs again and every vector is that of `composed`.
async fn is_embedded_again(scene: &Scene, composed: &str) {
    let finished = "SELECT count(*) FROM jobs WHERE init_finished_at IS NULL OR init_finished_at < init_started_at";
    testkit::vectors::wait_for_vectors(&scene.client, "notes", composed, "embedding").await;
    scene.wait_for(finished, "0").await;
    let read =
        "SELECT bool_and(active) FROM pg_replication_slots WHERE database = current_database()";
    scene.wait_for(read, "true").await;
    caught_up(scene, composed).await;
    assert_eq!(scene.failures().await, "");
}

#[tokio::test]
async fn another_template_is_another_job_with_another_publication() {
    for arguments in SLOT_MODES {
        for stopped in [false, true] {
            let mut scene = templated(NOTES, "{title}: {body}").await;
            write(&scene).await;
            scene.spawn_daemon_with(arguments);
            is_embedded_again(&scene, "title || ': ' || body").await;
            if stopped {
                scene.stop_daemon().await;
            }
            let params = r#"UPDATE jobs SET runtime_params = '{"template": "{views}, {body}"}'"#;
            scene.sql(params).await;
            if stopped {
                scene.spawn_daemon_with(arguments);
            }
            is_embedded_again(&scene, "views || ', ' || body").await;
            scene.sql("UPDATE notes SET views = views + 1").await;
            caught_up(&scene, "views || ', ' || body").await;
            scene.sql("UPDATE jobs SET runtime_params = NULL").await;
            is_embedded_again(&scene, "body").await;
            let slots =
                "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
            assert_eq!(scene.value(slots).await, "1");
        }
    }
}

/// Hazard 39, of a field.
#[tokio::test]
async fn a_field_that_is_redefined_is_embedded_again() {
    let generated = "CREATE TABLE notes (id int PRIMARY KEY, name text, other text, body text, \
                     title text GENERATED ALWAYS AS (name) STORED, embedding vector(384))";
    let plain = "CREATE TABLE notes (id int PRIMARY KEY, title text, other text, body text, embedding vector(384))";
    let add_again = "ALTER TABLE notes DROP COLUMN title, ADD COLUMN title text GENERATED ALWAYS AS (other) STORED";
    let rename = "BEGIN; ALTER TABLE notes RENAME title TO former; ALTER TABLE notes RENAME other TO title; COMMIT";
    for arguments in SLOT_MODES {
        for (tables, set, statement) in [(generated, "name", add_again), (plain, "title", rename)] {
            for stopped in [false, true] {
                let mut scene = templated(tables, TITLE_AND_BODY).await;
                scene
                    .sql(&format!(
                        "INSERT INTO notes (id, {set}, other, body) VALUES (1, 'a', 'Ebb', 'x'), (2, 'b', 'Flow', 'y')"
                    ))
                    .await;
                scene.spawn_daemon_with(arguments);
                is_embedded_again(&scene, COMPOSED).await;
                if stopped {
                    scene.stop_daemon().await;
                }
                scene.sql(statement).await;
                if stopped {
                    scene.spawn_daemon_with(arguments);
                }
                is_embedded_again(&scene, COMPOSED).await;
                let title = "SELECT string_agg(title, ' ' ORDER BY id) FROM notes";
                assert_eq!(scene.value(title).await, "Ebb Flow");
            }
        }
    }
}

/// Neither type change rewrites the table, and only the first prints its values in another way. The server refuses both for
/// columns that a publication lists.
#[tokio::test]
async fn a_field_that_prints_otherwise_under_its_new_type_is_embedded_again() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, at timestamptz, title varchar(10), body text, embedding vector(384)); \
                  ALTER TABLE notes REPLICA IDENTITY FULL";
    let composed = "COALESCE(at::text, '') || ' ' || title || ' ' || body";
    let mut scene = templated(tables, "{at} {title} {body}").await;
    scene
        .sql("SET timezone = 'UTC'; INSERT INTO notes VALUES (1, '2024-05-06 07:08:09Z', 'One', 'x'), (2, NULL, 'Two', 'y')")
        .await;
    scene.start_daemon().await;
    caught_up(&scene, composed).await;
    scene.sql("ALTER TABLE notes ALTER at TYPE timestamp").await;
    is_embedded_again(&scene, composed).await;
    let versions = scene.row_versions().await;
    scene
        .sql("ALTER TABLE notes ALTER title TYPE varchar(20)")
        .await;
    scene
        .sql("UPDATE notes SET title = 'Three' WHERE id = 2")
        .await;
    caught_up(&scene, composed).await;
    let first = |versions: &str| versions.split(' ').next().map(str::to_owned);
    assert_eq!(first(&scene.row_versions().await), first(&versions));
}

#[tokio::test]
async fn a_renamed_label_of_a_field_is_embedded_again() {
    let tables = "CREATE TYPE mood AS ENUM ('happy', 'sad'); \
                  CREATE TABLE notes (id int PRIMARY KEY, title mood, body text, embedding vector(384))";
    for stopped in [false, true] {
        let mut scene = templated(tables, TITLE_AND_BODY).await;
        scene
            .sql("INSERT INTO notes VALUES (1, 'happy', 'x')")
            .await;
        scene.start_daemon().await;
        caught_up(&scene, "title || E'\\n' || body").await;
        if stopped {
            scene.stop_daemon().await;
        }
        scene
            .sql("ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'")
            .await;
        if stopped {
            scene.spawn_daemon();
        }
        is_embedded_again(&scene, "title || E'\\n' || body").await;
    }
}

#[tokio::test]
async fn a_field_that_is_gone_is_named_and_a_corrected_template_goes_on() {
    for (identity, gone) in [
        ("DEFAULT", "ALTER TABLE notes RENAME title TO headline"),
        ("FULL", "ALTER TABLE notes RENAME title TO headline"),
        ("FULL", "ALTER TABLE notes DROP title"),
    ] {
        for stopped in [false, true] {
            let mut scene = templated(NOTES, TITLE_AND_BODY).await;
            scene
                .sql(&format!("ALTER TABLE notes REPLICA IDENTITY {identity}"))
                .await;
            write(&scene).await;
            scene.start_daemon().await;
            if stopped {
                scene.stop_daemon().await;
            }
            scene.sql(gone).await;
            if stopped {
                scene.spawn_daemon();
            } else {
                scene
                    .sql("UPDATE notes SET body = 'Changed' WHERE id = 1")
                    .await;
            }
            let reason = scene.wait_for_failure().await;
            assert!(
                reason.contains("\"title\"") && reason.contains("template"),
                "{reason}"
            );
            let corrected = r#"UPDATE jobs SET runtime_params = '{"template": "{views}: {body}"}', init_failed_at = NULL"#;
            scene.sql(corrected).await;
            is_embedded_again(&scene, "views || ': ' || body").await;
        }
    }
}

/// What only looks like another definition embeds nothing again.
#[tokio::test]
async fn statements_that_change_no_field_embed_nothing_again() {
    let options = [("fingerprint_column", "NULL")];
    for stopped in [false, true] {
        let mut scene = templated_with(NOTES, TITLE_AND_BODY, &options).await;
        if scene.database.version() < 15 {
            return;
        }
        write(&scene).await;
        scene.start_daemon().await;
        caught_up(&scene, COMPOSED).await;
        let versions = scene.row_versions().await;
        if stopped {
            scene.stop_daemon().await;
        }
        scene
            .sql("GRANT SELECT (body, title) ON notes TO PUBLIC; ALTER TABLE notes ALTER title SET STATISTICS 50, \
                  ADD COLUMN further int; ANALYZE notes; ALTER TABLE notes ALTER title SET DEFAULT 'x'")
            .await;
        scene.sql("VACUUM FULL notes").await;
        if stopped {
            scene.start_daemon().await;
        } else {
            // The watchdog polls once a second. The test is that it reports nothing.
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        }
        caught_up(&scene, COMPOSED).await;
        assert_eq!(scene.row_versions().await, versions, "embedded again");
    }
}

/// A partition may be attached whose columns stand in another order.
#[tokio::test]
async fn a_field_of_a_partition_that_is_redefined_is_embedded_again() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, name text, other text, body text, \
                    title text GENERATED ALWAYS AS (name) STORED, embedding vector(384)) PARTITION BY RANGE (id); \
                  CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (10); \
                  CREATE TABLE high PARTITION OF notes FOR VALUES FROM (10) TO (20)";
    let mut scene = scene_with(tables).await;
    if scene.database.version() < 17 {
        return;
    }
    job(&scene, TITLE_AND_BODY, &[]).await;
    scene
        .sql("INSERT INTO notes (id, name, other, body) VALUES (1, 'a', 'b', 'x'), (11, 'c', 'd', 'y')")
        .await;
    scene.start_daemon().await;
    caught_up(&scene, COMPOSED).await;
    scene
        .sql("ALTER TABLE low ALTER COLUMN title SET EXPRESSION AS (other)")
        .await;
    is_embedded_again(&scene, COMPOSED).await;
}
