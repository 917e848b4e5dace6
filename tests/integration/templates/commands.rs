//! The commands on a job with a template.

use serde_json::Value;
use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::vectors::wait_for_vectors;

use super::{COMPOSED, NOTES, TITLE_AND_BODY, caught_up, templated_with};
use crate::support::{check, program, scene_with, text};

const FINGERPRINTS: [(&str, &str); 1] = [("fingerprint_column", "'mark'")];

/// Four rows with their vectors, one without a text, and no daemon.
async fn in_step(options: &[(&str, &str)]) -> Scene {
    let mut scene = templated_with(NOTES, TITLE_AND_BODY, options).await;
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    scene
        .sql("UPDATE notes SET title = 'Note ' || id; INSERT INTO notes (id, title) VALUES (5, 'No text')")
        .await;
    scene.start_daemon().await;
    caught_up(&scene, COMPOSED).await;
    scene.stop_daemon().await;
    scene
}

/// Runs a command on the job; returns whether it succeeded and what it printed.
async fn run(scene: &Scene, command: &str, more: &[&str]) -> (bool, String) {
    let (uri, job) = (
        scene.database.uri(),
        scene.value("SELECT id FROM jobs").await,
    );
    let arguments = [&[command, "--uri", &uri, "--job", &job], more].concat();
    let output = program().run(&arguments).await;
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(printed).expect("text"),
    )
}

/// `texts missing leftover stale`, as `verify` counts them.
async fn verified(scene: &Scene, more: &[&str]) -> String {
    let (_, printed) = run(scene, "verify", &[&["--format", "json"], more].concat()).await;
    let found: Value = serde_json::from_str(&printed).expect(&printed);
    let counts = ["texts", "missing", "leftover", "stale"].map(|name| found[name].to_string());
    counts.join(" ")
}

#[tokio::test]
async fn verify_and_resync_go_by_the_text_that_the_template_makes() {
    for (options, more) in [(&FINGERPRINTS[..], &[][..]), (&[], &["--full"])] {
        let scene = in_step(options).await;
        assert_eq!(verified(&scene, more).await, "4 0 0 0");
        assert_eq!(verified(&scene, &["--full"]).await, "4 0 0 0");
        // Only the template tells that the second vector is stale.
        scene
            .sql("UPDATE notes SET embedding = NULL WHERE id = 1; UPDATE notes SET title = 'Changed' WHERE id = 2; \
                  UPDATE notes SET body = '' WHERE id = 3")
            .await;
        assert_eq!(verified(&scene, more).await, "3 1 1 1");
        let (done, printed) = match options.is_empty() {
            false => run(&scene, "resync", &[]).await,
            true => run(&scene, "resync", &["--all"]).await,
        };
        assert!(done, "{printed}");
        let rows = if options.is_empty() { 4 } else { 3 };
        assert!(printed.contains(&format!("{rows} rows done")), "{printed}");
        wait_for_vectors(&scene.client, "notes", COMPOSED, "embedding").await;
        assert_eq!(verified(&scene, &["--full"]).await, "3 0 0 0");
    }
}

#[tokio::test]
async fn a_row_that_failed_is_retried_with_all_of_its_columns() {
    let mut scene = in_step(&[]).await;
    scene
        .sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
               $$ BEGIN RAISE EXCEPTION 'no vector' USING ERRCODE = 'check_violation'; END $$; \
             CREATE TRIGGER refuse BEFORE UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    scene.start_daemon().await;
    scene
        .sql("UPDATE notes SET title = 'Failed' WHERE id = 2")
        .await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
    scene.stop_daemon().await;
    scene
        .sql("DROP TRIGGER refuse ON notes; UPDATE notes SET title = 'Retried' WHERE id = 2")
        .await;
    let (done, printed) = run(&scene, "retry-failed", &[]).await;
    assert!(done && printed.contains("1 row"), "{printed}");
    wait_for_vectors(&scene.client, "notes", COMPOSED, "embedding").await;
}

#[tokio::test]
async fn status_counts_rows_with_a_text_and_check_names_the_fields() {
    let scene = in_step(&[]).await;
    let uri = scene.database.uri();
    let printed = program()
        .stdout_of(&["status", "--uri", &uri, "--json"])
        .await;
    let shown: Value = serde_json::from_str(&printed).expect(&printed);
    let coverage = shown.to_string();
    assert!(
        coverage.contains("\"rows_with_text\":4") && coverage.contains("\"rows_with_vector\":4"),
        "{coverage}"
    );
    let checked = check(&["--uri", &uri, "--job", "1"]).await;
    assert_eq!(
        text(&checked, "template"),
        "\"public\".\"notes\".\"title\" text"
    );
    scene.sql("UPDATE notes SET embedding = NULL").await;
    let checked = check(&["--uri", &uri, "--job", "1"]).await;
    assert_eq!(text(&checked, "rows"), "4 to embed");
}

#[tokio::test]
async fn search_embeds_the_question_as_it_is() {
    let scene = in_step(&[]).await;
    if scene.database.skips_vector() {
        return;
    }
    let question = "tides and the moon";
    let uri = scene.database.uri();
    let printed = program()
        .stdout_of(&["search", "--uri", &uri, "--job", "1", "--json", question])
        .await;
    let found: Value = serde_json::from_str(&printed).expect(&printed);
    assert_eq!(found[0]["id"], "1");
    let vector = program().stdout_of(&["embed", "--query", question]).await;
    let similarity = format!(
        "SELECT (1 - (embedding <=> '{}'))::numeric(9,5) FROM notes WHERE id = 1",
        vector.trim()
    );
    let similarity: f64 = scene.value(&similarity).await.parse().expect("a number");
    let shown = found[0]["similarity"].as_f64().expect("a similarity");
    assert!((shown - similarity).abs() < 1e-3, "{found} {similarity}");
}

#[tokio::test]
async fn embed_table_takes_a_template() {
    let tables = "CREATE TABLE notes (id int PRIMARY KEY, title text, body text)";
    let scene = scene_with(tables).await;
    scene.write(&[TIDES, MOON]).await;
    scene
        .sql(
            "UPDATE notes SET title = 'Note ' || id; INSERT INTO notes VALUES (3, 'No text', NULL)",
        )
        .await;
    let uri = scene.database.uri();
    let embed = async |params: &str| {
        let arguments = [
            "embed-table",
            "--uri",
            &uri,
            "--table",
            "notes",
            "--column",
            "body",
            "--dst-column",
            "embedding",
            "--fingerprint-column",
            "mark",
            "--runtime-params",
            params,
        ];
        let output = program().run(&arguments).await;
        let printed = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(printed).expect("text"),
        )
    };
    let params = r#"{"template": "{title}\n{body}"}"#;
    let (status, printed) = embed(params).await;
    assert!(
        status == Some(0) && printed.contains("2 rows done"),
        "{printed}"
    );
    wait_for_vectors(&scene.client, "notes", COMPOSED, "embedding").await;
    scene
        .sql("UPDATE notes SET title = 'Changed' WHERE id = 1")
        .await;
    let (status, printed) = embed(params).await;
    assert!(
        status == Some(0) && printed.contains("1 row done"),
        "{printed}"
    );
    wait_for_vectors(&scene.client, "notes", COMPOSED, "embedding").await;
    let (status, printed) = embed(r#"{"template": "{titel}\n{body}"}"#).await;
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("did you mean \"title\"?"), "{printed}");
}
