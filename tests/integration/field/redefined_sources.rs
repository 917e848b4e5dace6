//! People change what the texts of a source column are, without a change of any row: the expression of a generated column,
//! a type with USING, the labels of an enum.

use testkit::Scene;
use testkit::jobs::{Job, insert_job};
use testkit::scene::{CAVES, DESERT, MOON, TIDES};

use crate::support::{program, scene_with};

const SLOT_MODES: [&[&str]; 2] = [&[], &["--slots", "database"]];

const DROP_AND_ADD: &str =
    "ALTER TABLE notes DROP COLUMN body, ADD COLUMN body text GENERATED ALWAYS AS (other) STORED";
const SET_EXPRESSION: &str = "ALTER TABLE notes ALTER COLUMN body SET EXPRESSION AS (other)";

/// Rows with a title and another text each; the source is generated from the title. With the column for fingerprints.
async fn generated_notes(kind: &str) -> Scene {
    let scene = scene_with(&format!(
        "CREATE TABLE notes (id int PRIMARY KEY, title text, other text, print uuid, \
         body text GENERATED ALWAYS AS (title) {kind}, embedding vector(384))"
    ))
    .await;
    for (id, title, other) in [(1, TIDES, MOON), (2, CAVES, DESERT), (3, MOON, TIDES)] {
        scene
            .execute(
                "INSERT INTO notes (id, title, other) VALUES ($1, $2, $3)",
                &[&id, &title, &other],
            )
            .await;
    }
    scene
}

async fn job(scene: &Scene, options: &[(&str, &str)]) {
    if !options.is_empty() {
        scene
            .sql("ALTER TABLE jobs ADD COLUMN fingerprint_column text")
            .await;
    }
    let job = Job {
        options,
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
}

/// Waits until the slot is read.
async fn wait_until_read(scene: &Scene) {
    let read =
        "SELECT bool_and(active) FROM pg_replication_slots WHERE database = current_database()";
    scene.wait_for(read, "true").await;
}

/// Redefines the source under a running or a stopped daemon; every vector is right afterwards.
async fn is_noticed(scene: &mut Scene, statements: &str, stopped: bool, arguments: &[&str]) {
    scene.spawn_daemon_with(arguments);
    scene.wait_for_vectors("notes", "body").await;
    scene.wait_until_confirmed().await;
    if stopped {
        scene.stop_daemon().await;
    }
    scene.sql(statements).await;
    if stopped {
        scene.spawn_daemon_with(arguments);
    }
    scene.wait_for_vectors("notes", "body").await;
    assert_eq!(scene.failures().await, "");
    scene.wait_for(UNFINISHED, "0").await;
    scene.wait_until_confirmed().await;
}

/// As [`is_noticed`]; and a further start embeds nothing again.
async fn is_noticed_once(scene: &mut Scene, statements: &str, stopped: bool, arguments: &[&str]) {
    is_noticed(scene, statements, stopped, arguments).await;
    nothing_is_embedded_again(scene, arguments).await;
}

/// Another start of a daemon whose jobs have finished.
async fn nothing_is_embedded_again(scene: &mut Scene, arguments: &[&str]) {
    scene.stop_daemon().await;
    let before = scene.row_versions().await;
    scene.spawn_daemon_with(arguments);
    wait_until_read(scene).await;
    scene.wait_until_confirmed().await;
    scene.wait_for(UNFINISHED, "0").await;
    assert_eq!(scene.row_versions().await, before, "embedded again");
    scene.stop_daemon().await;
}

/// The jobs whose backfill is not finished.
const UNFINISHED: &str = "SELECT count(*) FROM jobs WHERE init_finished_at < init_started_at";

/// Hazard 39. pgschema #591, prisma-engines PR #5800: what schema tools do.
#[tokio::test]
async fn a_generated_source_that_is_dropped_and_added_is_embedded_again() {
    for (stopped, arguments) in [
        (false, SLOT_MODES[0]),
        (true, SLOT_MODES[0]),
        (false, SLOT_MODES[1]),
        (true, SLOT_MODES[1]),
    ] {
        let mut scene = generated_notes("STORED").await;
        job(&scene, &[]).await;
        is_noticed_once(&mut scene, DROP_AND_ADD, stopped, arguments).await;
    }
}

/// Hazard 39. SET EXPRESSION came with PostgreSQL 17. For a virtual column, 18 refuses it on a published table.
#[tokio::test]
async fn a_generated_source_with_another_expression_is_embedded_again() {
    let virtually = DROP_AND_ADD.replace("STORED", "VIRTUAL");
    for (kind, since, redefine) in [
        ("STORED", 17, SET_EXPRESSION),
        ("VIRTUAL", 18, virtually.as_str()),
    ] {
        for (stopped, options) in [
            (false, &[][..]),
            (true, &[]),
            (false, &[("fingerprint_column", "'print'")]),
            (true, &[("fingerprint_column", "'print'")]),
        ] {
            if scene_with("").await.database.version() < since {
                continue;
            }
            let mut scene = generated_notes(kind).await;
            job(&scene, options).await;
            is_noticed_once(&mut scene, redefine, stopped, &[]).await;
        }
    }
}

/// Hazard 39. Two jobs on one table share its entry in the publication.
#[tokio::test]
async fn both_jobs_of_a_redefined_source_embed_it_again() {
    let mut scene = generated_notes("STORED").await;
    scene
        .sql("ALTER TABLE notes ADD COLUMN second vector(384)")
        .await;
    job(&scene, &[]).await;
    let second = Job::on(&scene.database, "notes", "body", "second");
    insert_job(&scene.client, second).await;
    let same = "SELECT count(*) FROM notes WHERE second IS NULL OR (second <-> embedding) > 0.001";
    is_noticed(&mut scene, DROP_AND_ADD, true, SLOT_MODES[1]).await;
    scene.wait_for(same, "0").await;
    scene.wait_for(UNFINISHED, "0").await;
    scene.wait_until_confirmed().await;
    nothing_is_embedded_again(&mut scene, SLOT_MODES[1]).await;
    scene.wait_for(same, "0").await;
}

/// Hazard 39. A partition may have an expression of its own. (A job that has only just begun may scan a partition once
/// too often when it starts again.)
#[tokio::test]
async fn a_partition_with_another_expression_is_embedded_again() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, title text, other text, \
            body text GENERATED ALWAYS AS (title) STORED, embedding vector(384)) PARTITION BY RANGE (id); \
         CREATE TABLE notes_low PARTITION OF notes FOR VALUES FROM (0) TO (10); \
         CREATE TABLE notes_high PARTITION OF notes FOR VALUES FROM (10) TO (20)";
    for stopped in [false, true] {
        let mut scene = scene_with(tables).await;
        if scene.database.version() < 17 {
            return;
        }
        for id in [1, 11] {
            scene
                .execute(
                    "INSERT INTO notes (id, title, other) VALUES ($1, $2, $3)",
                    &[&id, &TIDES, &MOON],
                )
                .await;
        }
        job(&scene, &[]).await;
        let alter = "ALTER TABLE notes_low ALTER COLUMN body SET EXPRESSION AS (other)";
        is_noticed(&mut scene, alter, stopped, &[]).await;
    }
}

/// Hazard 39. Without a column list the server allows another type, and a rewrite is not in the stream.
#[tokio::test]
async fn a_source_that_is_rewritten_by_using_is_embedded_again() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, body text, other text, views int NOT NULL DEFAULT 0, \
                  embedding vector(384)); ALTER TABLE notes REPLICA IDENTITY FULL";
    let rewrite = "ALTER TABLE notes ALTER COLUMN body TYPE varchar(8000) USING other";
    let same_type = "ALTER TABLE notes ALTER COLUMN body TYPE text USING other";
    for (statement, stopped) in [
        (rewrite, false),
        (rewrite, true),
        (same_type, false),
        (same_type, true),
    ] {
        let mut scene = scene_with(tables).await;
        job(&scene, &[]).await;
        for id in 1..=3 {
            scene
                .execute(
                    "INSERT INTO notes (id, body, other) VALUES ($1, $2, $3)",
                    &[&id, &TIDES, &MOON],
                )
                .await;
        }
        is_noticed_once(&mut scene, statement, stopped, &[]).await;
    }
}

/// Hazard 39. What only looks like it: nothing is embedded again.
#[tokio::test]
async fn statements_that_change_no_text_embed_nothing_again() {
    let harmless = "GRANT SELECT (body, title) ON notes TO PUBLIC; ALTER TABLE notes ALTER body SET STATISTICS 50, \
         ADD COLUMN IF NOT EXISTS further int; ANALYZE notes; ALTER TABLE notes ALTER title SET DEFAULT 'x'";
    let plain =
        "CREATE TABLE notes (id int PRIMARY KEY, title text, body text, embedding vector(384))";
    for restarts in [false, true] {
        // Of a source that is not listed by the publication, a stopped daemon cannot tell so much.
        let mut scene = match restarts {
            false => generated_notes("STORED").await,
            true => scene_with(plain).await,
        };
        if restarts && scene.database.version() < 15 {
            return;
        }
        job(&scene, &[]).await;
        if restarts {
            scene.write(&[TIDES, MOON]).await;
        }
        scene.start_daemon().await;
        scene.caught_up().await;
        let before = scene.row_versions().await;
        if restarts {
            scene.stop_daemon().await;
        }
        scene.sql(harmless).await;
        scene.sql("VACUUM FULL notes").await;
        if restarts {
            scene.start_daemon().await;
        } else {
            // The watchdog polls once a second. The test is that it reports nothing.
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        }
        scene.caught_up().await;
        assert_eq!(scene.row_versions().await, before, "embedded again");
        let log = scene.daemon().log();
        assert!(!log.contains("WARN"), "{log}");
    }
}

/// Hazard 39. Another column takes the name of the source.
#[tokio::test]
async fn a_source_whose_name_goes_to_another_column_is_embedded_again() {
    let tables =
        "CREATE TABLE notes (id int PRIMARY KEY, body text, other text, embedding vector(384))";
    let rename = "BEGIN; ALTER TABLE notes RENAME body TO former; ALTER TABLE notes RENAME other TO body; COMMIT";
    for identity in ["DEFAULT", "FULL"] {
        for (stopped, arguments) in [
            (false, SLOT_MODES[0]),
            (true, SLOT_MODES[0]),
            (true, SLOT_MODES[1]),
        ] {
            let mut scene = scene_with(tables).await;
            scene
                .sql(&format!("ALTER TABLE notes REPLICA IDENTITY {identity}"))
                .await;
            job(&scene, &[]).await;
            scene
                .execute("INSERT INTO notes VALUES (1, $1, $2)", &[&TIDES, &MOON])
                .await;
            is_noticed_once(&mut scene, rename, stopped, arguments).await;
        }
    }
}

/// Hazard 39. The text of a value may follow the name of another object, and no change of the row says so.
#[tokio::test]
async fn a_text_that_changes_with_a_name_is_read_by_key() {
    let tables = "CREATE TYPE mood AS (x int); CREATE TABLE notes (id int PRIMARY KEY, kind regtype, embedding vector(384))";
    let mut scene = scene_with(tables).await;
    scene.job("notes", "kind").await;
    scene.sql("INSERT INTO notes VALUES (1, 'mood')").await;
    scene.start_daemon().await;
    scene
        .wait_for("SELECT count(embedding) FROM notes", "1")
        .await;
    let old = scene.value("SELECT embedding FROM notes").await;
    scene
        .sql("BEGIN; INSERT INTO notes VALUES (2, 'mood'); ALTER TYPE mood RENAME TO feeling; COMMIT")
        .await;
    let written =
        format!("SELECT count(*) FROM notes WHERE id = 2 AND (embedding <-> '{old}') > 0.001");
    scene.wait_for(&written, "1").await;
    scene.wait_until_confirmed().await;
}

const MOODS: &str = "CREATE TYPE mood AS ENUM ('happy', 'sad'); \
    CREATE TABLE notes (id int PRIMARY KEY, mood mood, embedding vector(384))";

/// Waits until each row has a vector, and none the one that is `old`.
async fn wait_for_mood(scene: &Scene, old: &str) {
    let wrong = format!(
        "SELECT count(*) FROM notes WHERE embedding IS NULL OR (embedding <-> '{old}') < 0.001"
    );
    scene.wait_for(&wrong, "0").await;
}

/// Hazard 39. debezium PR #7668. A label is renamed: with a change that was not read yet, in one transaction with it, and
/// under rows that have their vectors.
#[tokio::test]
async fn a_renamed_label_of_a_source_loses_no_row_and_leaves_no_old_vector() {
    for arguments in SLOT_MODES {
        for stopped in [false, true] {
            let mut scene = scene_with(MOODS).await;
            let id = scene.job("notes", "mood").await;
            scene.sql("INSERT INTO notes VALUES (1, 'happy')").await;
            scene.spawn_daemon_with(arguments);
            scene
                .wait_for("SELECT count(embedding) FROM notes", "1")
                .await;
            scene.wait_until_confirmed().await;
            let old = scene.value("SELECT embedding FROM notes").await;
            let started = scene.value("SELECT init_started_at FROM jobs").await;
            if stopped {
                scene.stop_daemon().await;
            }
            scene
                .sql("BEGIN; INSERT INTO notes VALUES (2, 'happy'); ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'; COMMIT")
                .await;
            if stopped {
                scene.spawn_daemon_with(arguments);
            }
            wait_for_mood(&scene, &old).await;
            let finished = format!(
                "SELECT init_started_at > '{started}' AND init_finished_at >= init_started_at FROM jobs WHERE id = {id}"
            );
            scene.wait_for(&finished, "true").await;
            // The inserted row is scanned, and streamed once more.
            scene.wait_until_confirmed().await;
            // A label that is added changes nothing.
            let before = scene.row_versions().await;
            scene.sql("ALTER TYPE mood ADD VALUE 'calm'").await;
            wait_until_read(&scene).await;
            scene.stop_daemon().await;
            scene.spawn_daemon_with(arguments);
            wait_until_read(&scene).await;
            scene.wait_until_confirmed().await;
            assert_eq!(scene.row_versions().await, before, "embedded again");
            assert_eq!(scene.failures().await, "");
        }
    }
}

/// Hazard 39. The label is part of the key.
#[tokio::test]
async fn a_renamed_label_of_a_key_loses_no_row_and_leaves_no_dead_key() {
    for stopped in [false, true] {
        let mut scene = scene_with(
            "CREATE TYPE mood AS ENUM ('happy', 'sad'); \
             CREATE TABLE notes (mood mood, id int, body text, embedding vector(384), PRIMARY KEY (mood, id))",
        )
        .await;
        scene.job("notes", "body").await;
        scene.start_daemon().await;
        if stopped {
            scene.stop_daemon().await;
        }
        scene
            .sql("BEGIN; INSERT INTO notes SELECT 'happy', n, (SELECT min(body) FROM truth) FROM generate_series(1, 30) n; \
                  ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'; COMMIT")
            .await;
        if stopped {
            scene.spawn_daemon();
        }
        scene.wait_for_vectors("notes", "body").await;
        scene
            .execute("INSERT INTO notes VALUES ('glad', 99, $1)", &[&MOON])
            .await;
        scene.wait_for_vectors("notes", "body").await;
        let dead = scene.value("SELECT to_regclass('jobs_failures')").await;
        if !dead.is_empty() {
            assert_eq!(scene.value("SELECT count(*) FROM jobs_failures").await, "0");
        }
        assert_eq!(scene.failures().await, "");
    }
}

/// Hazard 39. A key that no row can have any more, in the failures table: the others are retried all the same.
#[tokio::test]
async fn retry_failed_passes_over_a_key_whose_label_was_renamed() {
    let scene = scene_with(
        "CREATE TYPE mood AS ENUM ('happy', 'sad'); \
         CREATE TABLE notes (mood mood, id int, body text, embedding vector(384), PRIMARY KEY (mood, id)); \
         ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL)",
    )
    .await;
    scene.job("notes", "body").await;
    scene
        .execute(
            "INSERT INTO notes SELECT m::mood, n, $1 FROM unnest(ARRAY['happy', 'sad']) m, generate_series(1, 3) n",
            &[&TIDES],
        )
        .await;
    let uri = scene.database.uri();
    let run = async |command| {
        program()
            .run(&[command, "--uri", &uri, "--job", "1"])
            .await
            .status
            .success()
    };
    assert!(!run("resync").await);
    let failed = "SELECT count(*) FROM jobs_failures";
    assert_eq!(scene.value(failed).await, "6");
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT keeps; ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'")
        .await;
    assert!(run("retry-failed").await);
    assert_eq!(scene.value(failed).await, "0");
    let written = "SELECT string_agg(mood::text, ' ') FROM notes WHERE embedding IS NOT NULL";
    assert_eq!(scene.value(written).await, "sad sad sad");
}
