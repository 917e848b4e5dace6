//! The commands for one job: `verify`, `resync`, `retry-failed`.

use testkit::scene::{CAVES, DESERT, MOON, TIDES};
use testkit::{Scene, server};

use crate::support::{notes_scene, program, scene_with};

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, embedding vector(384))";

/// Four rows with their vectors, and no daemon.
async fn in_step(fingerprints: bool) -> Scene {
    let mut scene = scene_with(NOTES).await;
    scene
        .sql("ALTER TABLE jobs ADD COLUMN fingerprint_column text")
        .await;
    scene.job("notes", "body").await;
    if fingerprints {
        scene
            .sql("UPDATE jobs SET fingerprint_column = 'mark'")
            .await;
    }
    scene.write(&[TIDES, MOON, CAVES, DESERT]).await;
    scene.sql("INSERT INTO notes (id) VALUES (5)").await;
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
}

/// One vector is missing, one is of an older text, and one belongs to a text that was removed.
async fn spoil(scene: &Scene) {
    scene
        .sql("UPDATE notes SET embedding = NULL WHERE id = 1; UPDATE notes SET body = '' WHERE id = 3")
        .await;
    scene.put(2, DESERT).await;
}

/// Runs a command on the job; returns whether it succeeded and what it printed.
async fn run(scene: &Scene, command: &str, more: &[&str]) -> (bool, String) {
    let (uri, job) = (
        scene.database.uri(),
        scene.value("SELECT id FROM jobs").await,
    );
    let mut arguments = vec![command, "--uri", &uri, "--job", &job];
    arguments.extend(more);
    let output = program().run(&arguments).await;
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(printed).expect("text"),
    )
}

/// `rows texts missing leftover stale unverified compared quarantined`, as `verify` counts them.
async fn verified(scene: &Scene, more: &[&str]) -> (bool, String) {
    let (sound, printed) = run(scene, "verify", &[&["--format", "json"], more].concat()).await;
    let found: serde_json::Value = serde_json::from_str(&printed).expect(&printed);
    let names = [
        "rows",
        "texts",
        "missing",
        "leftover",
        "stale",
        "unverified",
        "compared",
        "quarantined",
    ];
    let counts: Vec<String> = names.iter().map(|name| found[name].to_string()).collect();
    (sound, counts.join(" "))
}

#[tokio::test]
async fn with_fingerprints_resync_repairs_exactly_the_rows_that_verify_counts() {
    let scene = in_step(true).await;
    assert_eq!(
        verified(&scene, &[]).await,
        (true, "5 4 0 0 0 0 null 0".into())
    );
    assert_eq!(
        verified(&scene, &["--full"]).await,
        (true, "5 4 0 0 0 0 4 0".into())
    );
    spoil(&scene).await;
    assert_eq!(
        verified(&scene, &[]).await,
        (false, "5 3 1 1 1 0 null 0".into())
    );
    let (_, printed) = run(&scene, "verify", &[]).await;
    assert!(
        printed.contains("1  stale vectors, by fingerprint") && printed.contains("resync"),
        "{printed}"
    );

    let untouched = "SELECT xmin::text FROM notes WHERE id = 4";
    let version = scene.value(untouched).await;
    let (repaired, printed) = run(&scene, "resync", &[]).await;
    assert!(repaired && printed.contains("3 rows done"), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    assert_eq!(scene.value(untouched).await, version);
    assert_eq!(
        verified(&scene, &["--full"]).await,
        (true, "5 3 0 0 0 0 3 0".into())
    );
}

#[tokio::test]
async fn without_fingerprints_verify_embeds_texts_again_to_compare() {
    let scene = in_step(false).await;
    spoil(&scene).await;
    assert_eq!(
        verified(&scene, &["--full"]).await,
        (false, "5 3 1 1 1 0 2 0".into())
    );
    let (_, printed) = run(&scene, "resync", &[]).await;
    assert!(
        printed.contains("2 rows done") && printed.contains("--all"),
        "{printed}"
    );
    assert_eq!(
        verified(&scene, &["--full"]).await,
        (false, "5 3 0 0 1 0 3 0".into())
    );
    run(&scene, "resync", &["--all"]).await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    assert_eq!(
        verified(&scene, &["--sample", "1000"]).await,
        (true, "5 3 0 0 0 0 3 0".into())
    );
}

#[tokio::test]
async fn quarantined_rows_are_retried() {
    let mut scene = in_step(false).await;
    scene
        .sql("ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id NOT IN (6, 7, 8)) NOT VALID")
        .await;
    scene.start_daemon().await;
    for id in [6, 7, 8] {
        scene.put(id, TIDES).await;
    }
    scene.wait_for_failed_rows("key->>'id'", "6, 7, 8").await;
    scene
        .sql("ALTER TABLE notes DROP CONSTRAINT keeps, ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 6); DELETE FROM notes WHERE id = 8")
        .await;
    let (all, printed) = run(&scene, "retry-failed", &[]).await;
    assert!(
        !all && printed.contains("3 rows tried") && printed.contains("\"keeps\""),
        "{printed}"
    );
    scene.wait_for_failed_rows("key->>'id'", "6").await;
    scene.wait_for_failed_rows("attempts", "2").await;
    scene.sql("ALTER TABLE notes DROP CONSTRAINT keeps").await;
    let (all, printed) = run(&scene, "retry-failed", &[]).await;
    assert!(all, "{printed}");
    scene.wait_for_failed_rows("key->>'id'", "").await;
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn a_command_for_an_unknown_job_lists_the_jobs_that_exist() {
    let scene = notes_scene().await;
    for command in ["verify", "resync", "retry-failed"] {
        let output = program()
            .run(&[command, "--uri", &scene.database.uri(), "--job", "77"])
            .await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("no job 77") && said.contains("it has 1"),
            "{said}"
        );
    }
}

/// A trigger of the user's that counts the updates of each row.
const TOUCH: &str = "ALTER TABLE notes ADD COLUMN touched int NOT NULL DEFAULT 0;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END';
    CREATE TRIGGER touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch()";

#[tokio::test]
async fn commands_fire_no_triggers_of_a_job_with_skip_triggers() {
    let scene = notes_scene().await;
    scene.sql(TOUCH).await;
    scene
        .sql(
            "ALTER TABLE jobs ADD COLUMN skip_triggers boolean; UPDATE jobs SET skip_triggers = true; \
             ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id <> 2)",
        )
        .await;
    scene.write(&[TIDES, MOON]).await;
    let state = "SELECT string_agg(concat_ws(' ', id, touched, embedding IS NOT NULL), ', ' ORDER BY id) FROM notes";

    let (all, printed) = run(&scene, "resync", &[]).await;
    assert!(!all && printed.contains("2 rows done"), "{printed}");
    assert_eq!(scene.value(state).await, "1 0 t, 2 0 f");

    scene.sql("ALTER TABLE notes DROP CONSTRAINT keeps").await;
    let (all, printed) = run(&scene, "retry-failed", &[]).await;
    assert!(all && printed.contains("1 row tried"), "{printed}");
    assert_eq!(scene.value(state).await, "1 0 t, 2 0 t");

    // Without the option both of them fire the trigger, as the daemon does.
    scene.sql("UPDATE jobs SET skip_triggers = false").await;
    run(&scene, "resync", &["--all"]).await;
    assert_eq!(scene.value(state).await, "1 1 t, 2 1 t");
}

#[tokio::test]
async fn resync_writes_at_most_batch_size_rows_in_a_transaction() {
    let scene = notes_scene().await;
    scene
        .sql(&format!(
            "ALTER TABLE jobs ADD COLUMN batch_size bigint; UPDATE jobs SET batch_size = 3; \
             INSERT INTO notes (id, body) SELECT n, '{TIDES}' FROM generate_series(1, 60) n"
        ))
        .await;
    let (all, printed) = run(&scene, "resync", &[]).await;
    assert!(all && printed.contains("60 rows done"), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    // Rows that were written in one transaction share xmin.
    let largest = "SELECT max(rows) FROM (SELECT count(*) AS rows FROM notes GROUP BY xmin) t";
    assert_eq!(scene.value(largest).await, "3");
}

#[tokio::test]
async fn commands_connect_only_to_hosts_that_are_allowed() {
    let scene = in_step(false).await;
    let place = format!("127.0.0.1:{}", server::shared().port());
    for (command, more) in [
        ("search", &["the moon"][..]),
        ("verify", &[]),
        ("resync", &["--all"]),
        ("retry-failed", &[]),
    ] {
        let versions = scene.row_versions().await;
        let other = [&["--allow-host", "db.example.org"], more].concat();
        let (done, said) = run(&scene, command, &other).await;
        assert!(
            !done && said.contains(&format!("--allow-host {place}")),
            "{command}: {said}"
        );
        assert_eq!(scene.row_versions().await, versions, "{command}");

        let both = [&["--allow-host", &place][..], &other].concat();
        let (done, said) = run(&scene, command, &both).await;
        assert!(done, "{command}: {said}");
    }
}
