//! What people ask about a job that is not, or not yet, what they take it for; with as few rights as that needs.

use testkit::scene::{CAVES, MOON, NOTES, TIDES};
use testkit::{Scene, server};

use crate::support::{notes_scene, program, scene_with};

/// Runs a command on job 1; returns its status and what it printed to either stream.
async fn run(scene: &Scene, command: &str, more: &[&str]) -> (Option<i32>, String, String) {
    run_at(&scene.database.uri(), command, more).await
}

async fn run_at(uri: &str, command: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&[command, "--uri", uri, "--job", "1"], more].concat();
    let output = program().run(&arguments).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A scene with vectors, and no daemon.
async fn embedded_notes() -> Scene {
    let mut scene = notes_scene().await;
    scene.write(&[TIDES, MOON, CAVES]).await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
}

/// `UPDATE … SET init_failed_at = NULL …`, as the messages have it.
const RESTART: &str = r#"UPDATE "public"."jobs" SET init_failed_at = NULL WHERE id = 1;"#;

#[tokio::test]
async fn commands_say_that_a_job_has_failed_and_how_to_start_it_again() {
    let scene = embedded_notes().await;
    scene
        .sql("UPDATE jobs SET init_failed_at = now(), init_failure_reason = 'the disk of articles is full.'")
        .await;
    for (command, more) in [
        ("search", &["the moon"][..]),
        ("verify", &[]),
        ("resync", &["--all"]),
    ] {
        let (status, _, said) = run(&scene, command, more).await;
        assert_eq!(status, Some(0), "{command}: {said}");
        assert!(
            said.starts_with("warning: job 1 has failed")
                && said.contains("the disk of articles is full;"),
            "{command}: {said}"
        );
        assert!(said.contains(RESTART), "{command}: {said}");
    }
    // "0 rows tried" would read as if all were well.
    let (status, printed, said) = run(&scene, "retry-failed", &[]).await;
    assert_eq!(status, Some(1), "{printed}{said}");
    assert!(!printed.contains("0 rows tried"), "{printed}");
    assert!(
        said.matches(RESTART).count() == 2 && said.contains("the job itself has failed"),
        "{said}"
    );
}

#[tokio::test]
async fn a_job_that_failed_before_it_began_says_why_and_not_only_what_is_missing() {
    let mut scene = scene_with("CREATE TABLE notes (id int, body text)").await;
    scene.job("notes", "body").await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    scene.stop_daemon().await;
    for (command, more) in [
        ("search", &["the moon"][..]),
        ("verify", &[]),
        ("resync", &[]),
        ("retry-failed", &[]),
    ] {
        let (status, _, said) = run(&scene, command, more).await;
        assert_eq!(status, Some(1), "{command}: {said}");
        let reason = reason.split(':').next().unwrap_or_default();
        assert!(
            said.contains(reason) && said.contains(RESTART),
            "{command}: {said}"
        );
    }
}

#[tokio::test]
async fn commands_say_what_state_a_job_is_in() {
    let scene = embedded_notes().await;
    let said = async |set: &str| {
        scene.sql(&format!("UPDATE jobs SET {set}")).await;
        let (status, printed, said) = run(&scene, "search", &["the moon"]).await;
        assert!(
            status == Some(0) && printed.contains("similarity"),
            "{set}: {said}"
        );
        let (status, json, also) = run(&scene, "verify", &["--format", "json"]).await;
        assert_eq!((status, &also), (Some(0), &said), "{set}");
        serde_json::from_str::<serde_json::Value>(&json).expect(&json);
        said
    };
    assert_eq!(said("init_failed_at = NULL").await, "");
    assert_eq!(
        said("canceled_at = true").await,
        "warning: job 1 is canceled: rows that have changed since have a stale vector or none\n"
    );
    assert_eq!(
        said("canceled_at = NULL, init_finished_at = NULL").await,
        "warning: job 1 has not finished its initial backfill: rows are missing\n"
    );
    scene
        .sql("ALTER TABLE jobs ADD COLUMN init_progress int")
        .await;
    assert_eq!(
        said("init_progress = 65").await,
        "warning: job 1 has not finished its initial backfill (65 % done): rows are missing\n"
    );
    assert!(
        said("init_finished_at = init_started_at - interval '1 second'")
            .await
            .starts_with("warning: job 1 is embedding rows again (65 % done)")
    );
    assert_eq!(
        said("init_started_at = NULL").await,
        "warning: job 1 has not started yet: a daemon with this jobs table starts it\n"
    );
}

#[tokio::test]
async fn searching_and_verifying_take_no_more_than_select() {
    let scene = embedded_notes().await;
    let role = format!("reader_of_{}", scene.database.name());
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT ON jobs, notes TO {role}; \
             CREATE TABLE jobs_failures (job_id text NOT NULL, key jsonb NOT NULL, error text NOT NULL, \
               attempts int NOT NULL, failed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (job_id, key)); \
             INSERT INTO jobs_failures VALUES ('1', '{{\"id\": \"2\"}}', 'refused', 1)"
        ))
        .await;
    // The shared server asks for a password, which the role of the tests has.
    let uri = scene.database.uri();
    let session = format!("{uri}?options=-c%20role%3D{role}");
    let (status, printed, said) = run_at(&session, "search", &["the moon"]).await;
    assert!(
        status == Some(0) && printed.contains("similarity"),
        "{said}"
    );
    let (status, printed, said) = run_at(&session, "verify", &[]).await;
    assert!(
        status == Some(0) && printed.contains(r#"the role may not read "public"."jobs_failures""#),
        "{printed}{said}"
    );
    let (_, json, _) = run_at(&session, "verify", &["--format", "json"]).await;
    assert!(json.contains("\"quarantined\": null"), "{json}");

    scene
        .sql(&format!("REVOKE SELECT ON jobs FROM {role}"))
        .await;
    let (status, _, said) = run_at(&session, "search", &["the moon"]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains(r#"GRANT SELECT ON "public"."jobs" TO "#),
        "{said}"
    );
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn a_search_for_no_rows_is_refused_and_a_list_of_columns_may_have_blanks() {
    let scene = embedded_notes().await;
    scene
        .sql("ALTER TABLE notes ADD COLUMN \" odd\" text DEFAULT 'yes'")
        .await;
    let (status, _, said) = run(&scene, "search", &["--limit", "0", "the moon"]).await;
    assert!(
        status == Some(2) && said.contains("0 is not in 1.."),
        "{said}"
    );

    for columns in [
        "body, views",
        "body,views",
        " body ,views ",
        "body, body,views,",
    ] {
        let (status, printed, said) = run(&scene, "search", &["--columns", columns, "moon"]).await;
        assert_eq!(status, Some(0), "{columns:?}: {said}");
        let headings: Vec<&str> = printed
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert_eq!(
            headings,
            ["similarity", "id", "body", "views"],
            "{columns:?}"
        );
    }
    let (_, printed, _) = run(&scene, "search", &["--columns", " odd", "moon"]).await;
    assert!(printed.contains("yes"), "{printed}");
    for columns in ["nosuch", "body, nosuch", "Body"] {
        let (status, _, said) = run(&scene, "search", &["--columns", columns, "moon"]).await;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("it has id, body, views, embedding"), "{said}");
    }
}

#[tokio::test]
async fn a_jobs_table_in_another_place_is_named() {
    let scene = scene_with(NOTES).await;
    scene
        .sql(
            "CREATE SCHEMA app; CREATE SCHEMA \"My Schema\"; ALTER TABLE jobs SET SCHEMA app; \
             CREATE TABLE app.\"EmbedJobs\" (LIKE app.jobs); CREATE TABLE \"My Schema\".work (LIKE app.jobs); \
             CREATE TABLE public.unrelated (id int); CREATE SCHEMA other; CREATE TABLE other.jobs (id int)",
        )
        .await;
    for (arguments, hint) in [
        (&[][..], "did you mean --schema app --table jobs?"),
        (
            &["--table", "app.jobs"],
            "did you mean --schema app --table jobs?",
        ),
        (
            &["--table", "\"EmbedJobs\""],
            "did you mean --schema app --table EmbedJobs?",
        ),
        (
            &["--table", "app.\"EmbedJobs\""],
            "did you mean --schema app --table EmbedJobs?",
        ),
        (
            &["--table", "embedjobs"],
            "did you mean --schema app --table EmbedJobs?",
        ),
        (
            &["--table", "work"],
            "did you mean --schema 'My Schema' --table work?",
        ),
        (
            &["--table", "Work", "--schema", "my schema"],
            "did you mean --schema 'My Schema' --table work?",
        ),
    ] {
        let (status, _, said) = run(&scene, "search", &[arguments, &["moon"]].concat()).await;
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(hint), "{arguments:?}: {said}");
        let uri = scene.database.uri();
        let arguments = [&["start-daemon", "--uri", &uri], arguments].concat();
        let output = program().run(&arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(hint), "{arguments:?}: {said}");
    }
    // What is named works.
    let (_, _, said) = run(
        &scene,
        "search",
        &["--schema", "app", "--table", "EmbedJobs", "moon"],
    )
    .await;
    assert!(said.contains("there is no job 1"), "{said}");

    let none = testkit::TestDatabase::create(server::shared()).await;
    let (_, _, said) = run_at(&none.uri(), "search", &["moon"]).await;
    assert!(
        said.contains("lantern-cli sql jobs | psql") && !said.contains("did you mean"),
        "{said}"
    );
}
