//! People have databases in encodings other than UTF-8, and bytes in them that have no form in UTF-8.

use testkit::jobs::Job;
use testkit::jobs::insert_job;
use testkit::{Scene, TestDatabase, server};

use crate::support::program;

const TABLES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, other text, print uuid, embedding real[]); \
    CREATE TABLE others (id int PRIMARY KEY, body text, embedding real[])";

/// A scene whose database has this encoding, with jobs on `notes` and `others`.
async fn encoded(encoding: &str) -> Scene {
    let database = TestDatabase::with_encoding(server::shared(), encoding).await;
    let scene = Scene::without_vectors(program(), database).await;
    scene.sql(TABLES).await;
    scene.job("notes", "body").await;
    scene.job("others", "body").await;
    scene
}

/// Writes rows with these ids. The bytes of the text are those of the encoding itself.
async fn write(scene: &Scene, table: &str, ids: &str, text: &str) {
    let encoding = scene
        .value("SELECT current_setting('server_encoding')")
        .await;
    scene
        .sql(&format!(
            "SET client_encoding = '{encoding}'; \
             INSERT INTO {table} (id, body) SELECT n, E'{text} ' || n FROM {ids} n; SET client_encoding = 'UTF8'"
        ))
        .await;
}

/// The ids of the rows of `notes` that have a text and no vector.
const MISSING: &str =
    "SELECT string_agg(id::text, ',' ORDER BY id) FROM notes WHERE embedding IS NULL";

/// Hazard 43. pgcopydb #874: nothing says what the bytes mean.
#[tokio::test]
async fn a_database_without_an_encoding_is_refused_at_the_start() {
    let mut scene = encoded("SQL_ASCII").await;
    scene.spawn_daemon();
    let refused =
        "SELECT count(*) FROM jobs WHERE init_failure_reason LIKE '%SQL_ASCII%ENCODING ''UTF8''%'";
    scene.wait_for(refused, "2").await;
    assert_eq!(scene.leftovers().await, "0 publications, 0 slots");
}

/// Hazard 43. OHDSI/CommonDataModel #440. A text without a form in UTF-8 is quarantined, whether it is there before the job
/// or comes later; no other row and no other job waits for it.
#[tokio::test]
async fn a_text_without_a_form_in_utf8_is_quarantined() {
    for arguments in [&[][..], &["--slots", "database"]] {
        for fingerprint in [false, true] {
            let mut scene = encoded("WIN1252").await;
            if fingerprint {
                scene
                    .sql(
                        "ALTER TABLE jobs ADD COLUMN fingerprint_column text; \
                          UPDATE jobs SET fingerprint_column = 'print' WHERE \"table\" = 'notes'",
                    )
                    .await;
            }
            write(&scene, "notes", "generate_series(1, 600)", "good \\xe9").await;
            write(&scene, "notes", "generate_series(1001, 1001)", "bad \\x81").await;
            scene.spawn_daemon_with(arguments);
            scene.wait_for_failed_rows("key->>'id'", "1001").await;
            scene.wait_for(MISSING, "1001").await;
            write(&scene, "notes", "generate_series(2001, 2001)", "bad \\x81").await;
            write(&scene, "notes", "generate_series(3001, 3020)", "good \\xe9").await;
            write(&scene, "others", "generate_series(1, 20)", "good").await;
            scene.wait_for(MISSING, "1001,2001").await;
            scene
                .wait_for("SELECT count(*) FROM others WHERE embedding IS NULL", "0")
                .await;
            scene.wait_for_failed_rows("key->>'id'", "1001, 2001").await;
            assert_eq!(scene.failures().await, "");
            // The remedy.
            scene
                .sql("UPDATE notes SET body = 'mended' WHERE body LIKE 'bad%'")
                .await;
            scene.wait_for(MISSING, "").await;
            scene
                .wait_for("SELECT count(*) FROM jobs_failures", "0")
                .await;
        }
    }
}

/// Hazard 43. A column that the job does not need holds up the job only where whole rows are sent, and then with a reason.
#[tokio::test]
async fn another_column_without_a_form_in_utf8_fails_a_job_only_under_identity_full() {
    let mut scene = encoded("WIN1252").await;
    if scene.database.version() < 15 {
        return;
    }
    scene.start_daemon().await;
    let bad = "SET client_encoding = 'WIN1252'; INSERT INTO notes VALUES (1, 'good', E'bad \\x81')";
    scene.sql(bad).await;
    scene.sql("SET client_encoding = 'UTF8'").await;
    scene.wait_for(MISSING, "").await;
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    scene.wait_for_cleanup().await;
    scene
        .sql("ALTER TABLE notes REPLICA IDENTITY FULL; UPDATE jobs SET canceled_at = NULL")
        .await;
    let reason = "SELECT count(*) FROM jobs WHERE init_failure_reason LIKE '%REPLICA IDENTITY DEFAULT%' AND \"table\" = 'notes'";
    scene.wait_for(reason, "1").await;
    scene.sql("INSERT INTO others VALUES (1, 'good')").await;
    scene
        .wait_for("SELECT count(embedding) FROM others", "1")
        .await;
}

/// Hazard 43. Every text of these encodings has a form in UTF-8.
#[tokio::test]
async fn other_encodings_are_followed() {
    for (encoding, text) in [("LATIN1", "caf\\xe9"), ("EUC_JP", "\\xb7\\xee\\xbf\\xa9")] {
        let database = TestDatabase::with_encoding(server::shared(), encoding).await;
        let mut scene = Scene::without_vectors(program(), database).await;
        scene.sql(TABLES).await;
        scene
            .sql("ALTER TABLE jobs ADD COLUMN fingerprint_column text")
            .await;
        let job = Job {
            options: &[("fingerprint_column", "'print'")],
            ..Job::on(&scene.database, "notes", "body", "embedding")
        };
        insert_job(&scene.client, job).await;
        write(&scene, "notes", "generate_series(1, 20)", text).await;
        scene.start_daemon().await;
        write(&scene, "notes", "generate_series(21, 40)", text).await;
        scene.wait_for(MISSING, "").await;
        let wrong = "SELECT count(*) FROM notes WHERE print IS NULL";
        scene.wait_for(wrong, "0").await;
        assert_eq!(scene.failures().await, "");
    }
}

/// Hazard 43. A key without a form in UTF-8 names no row, so it is for a person; the other job of the slot goes on.
#[tokio::test]
async fn a_key_without_a_form_in_utf8_fails_its_job_alone() {
    let mut scene = encoded("WIN1252").await;
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT notes_pkey, ALTER id TYPE text, ADD PRIMARY KEY (id)")
        .await;
    scene.spawn_daemon_with(&["--slots", "database"]);
    write(&scene, "others", "generate_series(1, 2)", "good").await;
    scene
        .wait_for("SELECT count(embedding) FROM others", "2")
        .await;
    scene
        .sql("SET client_encoding = 'WIN1252'; INSERT INTO notes VALUES (E'\\x81', 'text'); SET client_encoding = 'UTF8'")
        .await;
    let failed = "SELECT count(*) FROM jobs WHERE init_failure_reason LIKE '%keys of \"public\".\"notes\"%correct it%'";
    scene.wait_for(failed, "1").await;
    write(&scene, "others", "generate_series(3, 9)", "good").await;
    scene
        .wait_for("SELECT count(embedding) FROM others", "9")
        .await;
}
