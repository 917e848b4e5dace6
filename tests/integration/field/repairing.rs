//! What people do about vectors that are wrong: they ask `verify`, and follow its advice.

use testkit::Scene;
use testkit::scene::{CAVES, DESERT, MOON, NOTES, TIDES};

use crate::support::{program, scene_with};

/// Runs a command on job 1; returns its status and all that it printed.
async fn run(scene: &Scene, command: &str, more: &[&str]) -> (Option<i32>, String) {
    let uri = scene.database.uri();
    let arguments = [&[command, "--uri", &uri, "--job", "1"], more].concat();
    let output = program().run(&arguments).await;
    let printed = String::from_utf8([output.stdout, output.stderr].concat());
    (output.status.code(), printed.expect("text"))
}

/// Rows with their vectors, and no daemon.
async fn embedded(fingerprints: bool) -> Scene {
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
    scene.start_daemon().await;
    scene.stop_daemon().await;
    scene
}

/// The advice at the end of what `verify` prints.
fn advice(printed: &str) -> Vec<&str> {
    let line = printed.lines().find(|line| line.contains("repairs this"));
    let line = line.unwrap_or_else(|| panic!("no advice: {printed}"));
    let (command, _) = line.split_once(" repairs this").expect("it was found");
    command.split(' ').skip(1).collect()
}

/// Follows the advice of `verify`, and asks it again.
async fn follow(scene: &Scene, more: &[&str]) -> Vec<String> {
    let (status, printed) = run(scene, "verify", more).await;
    assert_eq!(status, Some(1), "{printed}");
    let command: Vec<String> = advice(&printed).iter().map(ToString::to_string).collect();
    let all = if command.contains(&"--all".into()) {
        &["--all"][..]
    } else {
        &[]
    };
    let (status, repaired) = run(scene, &command[0], all).await;
    assert_eq!(status, Some(0), "{repaired}");
    let (status, printed) = run(scene, "verify", more).await;
    assert_eq!(status, Some(0), "{printed}");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
    command
}

#[tokio::test]
async fn the_advice_of_verify_repairs_what_it_has_found() {
    let scene = embedded(false).await;
    scene.put(2, DESERT).await;
    assert_eq!(follow(&scene, &[]).await, ["resync", "--all", "--job", "1"]);
    scene
        .sql("UPDATE notes SET embedding = NULL WHERE id = 1")
        .await;
    assert_eq!(follow(&scene, &[]).await, ["resync", "--job", "1"]);

    let scene = embedded(true).await;
    scene.put(2, DESERT).await;
    assert_eq!(follow(&scene, &[]).await, ["resync", "--job", "1"]);
    assert_eq!(follow_foreign_vector(&scene, &[]).await, None);
    assert_eq!(
        follow_foreign_vector(&scene, &["--full"]).await,
        Some(vec![
            "resync".into(),
            "--all".into(),
            "--job".into(),
            "1".into()
        ])
    );
}

/// Another job, or a person, has replaced a vector beside its fingerprint. Only `--full` sees it.
async fn follow_foreign_vector(scene: &Scene, more: &[&str]) -> Option<Vec<String>> {
    scene
        .sql("UPDATE notes SET embedding = (SELECT embedding FROM notes WHERE id = 3) WHERE id = 1")
        .await;
    match run(scene, "verify", more).await {
        (Some(0), _) => None,
        _ => Some(follow(scene, more).await),
    }
}

#[tokio::test]
async fn resync_that_leaves_stale_vectors_fails_and_says_what_it_has_done() {
    let scene = embedded(false).await;
    scene.put(2, DESERT).await;
    scene
        .sql("UPDATE notes SET embedding = NULL WHERE id = 1")
        .await;
    let (status, printed) = run(&scene, "resync", &[]).await;
    assert_eq!(status, Some(1), "{printed}");
    for words in [
        "1 row done",
        "1 of 4 vectors",
        "are stale",
        "lantern-cli resync --all --job 1",
    ] {
        assert!(printed.contains(words), "no {words}: {printed}");
    }
    let (status, printed) = run(&scene, "resync", &["--all"]).await;
    assert_eq!(status, Some(0), "{printed}");
    let (status, printed) = run(&scene, "resync", &[]).await;
    assert!(
        status == Some(0) && printed.contains("none is stale"),
        "{printed}"
    );
}

const MOODS: &str = "CREATE TYPE mood AS ENUM ('happy', 'sad');
    CREATE TABLE notes (id int, mood mood, body text, embedding vector(384), PRIMARY KEY (mood, id));
    ALTER TABLE notes ADD CONSTRAINT keeps CHECK (embedding IS NULL OR id < 10)";

/// debezium 7668, sequin 2149: a value of an enum in the key is renamed.
#[tokio::test]
async fn a_key_that_cannot_exist_any_more_stops_the_retry_of_no_other() {
    for command in ["retry-failed", "resync"] {
        let mut scene = scene_with(MOODS).await;
        scene.job("notes", "body").await;
        let insert =
            "INSERT INTO notes (id, mood, body) VALUES ($1::text::int, $2::text::mood, $3)";
        for (id, mood, body) in [
            ("10", "happy", TIDES),
            ("11", "sad", MOON),
            ("12", "sad", CAVES),
        ] {
            scene.execute(insert, &[&id, &mood, &body]).await;
        }
        scene.spawn_daemon();
        scene.wait_for_failed_rows("key->>'id'", "10, 11, 12").await;
        scene.stop_daemon().await;
        scene
            .sql("ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'; ALTER TABLE notes DROP CONSTRAINT keeps")
            .await;
        let (status, printed) = run(&scene, command, &[]).await;
        assert_eq!(status, Some(0), "{command}: {printed}");
        for words in [
            "1 row has left the failures table",
            r#""mood":"happy""#,
            "lantern-cli resync",
        ] {
            assert!(printed.contains(words), "{command}, no {words}: {printed}");
        }
        scene.wait_for_failed_rows("key->>'id'", "").await;
        let missing = "SELECT string_agg(id::text, ' ') FROM notes WHERE embedding IS NULL";
        let left = scene.value(missing).await;
        assert_eq!(left, if command == "resync" { "" } else { "10" });
        let (_, printed) = run(&scene, "resync", &[]).await;
        assert_eq!(scene.wrong_vectors("notes", "body").await, "", "{printed}");
    }
}
