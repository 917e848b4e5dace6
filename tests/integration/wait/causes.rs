//! What `lantern-cli wait` says of the reason why a job is not done.

use testkit::client::execute;
use testkit::scene::TIDES;
use testkit::wait::TIMEOUT;
use testkit::{Scene, TestDatabase, paths, server};

use crate::support::{notes_scene, program};

/// Runs `wait` on job 1; returns its status and what it printed to either stream.
async fn wait(scene: &Scene, more: &[&str]) -> (Option<i32>, String) {
    let uri = scene.database.uri();
    let arguments = [&["wait", "--uri", &uri, "--job", "1"], more].concat();
    let output = program().run(&arguments).await;
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8(printed).expect("text"),
    )
}

const NOW: [&str; 2] = ["--timeout", "0s"];

/// A scene with all optional columns.
async fn recorded_notes() -> Scene {
    let scene = notes_scene().await;
    let columns = "ALTER TABLE jobs ADD waits_for text, ADD last_error text, ADD stats jsonb";
    scene.sql(columns).await;
    scene
}

#[tokio::test]
async fn what_the_row_says_is_told_at_once_and_at_the_end() {
    let mut scene = recorded_notes().await;
    let writer = scene.session("BEGIN; CREATE TABLE unrelated (n int)").await;
    scene.spawn_daemon();
    let waits = "SELECT waits_for LIKE 'process %' FROM jobs";
    scene.wait_for(waits, "true").await;
    let (status, said) = wait(&scene, &NOW).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!((status, lines.len()), (Some(4), 2), "{said}");
    assert!(
        lines[0].starts_with("warning: job 1: it waits for: process ")
            && lines[1].starts_with("error: job 1 has not ")
            && lines[1].contains("; it waits for: process ")
            && lines[1].contains("idle in transaction"),
        "{said}"
    );
    execute(&writer, "COMMIT").await;
    scene.wait_for_backfill().await;

    // The table is gone, and may come back.
    scene.sql("ALTER TABLE notes RENAME TO away").await;
    let interrupted = "SELECT last_error IS NOT NULL FROM jobs";
    scene.wait_for(interrupted, "true").await;
    let (status, said) = wait(&scene, &[&NOW[..], &["--json"]].concat()).await;
    assert!(
        status == Some(4) && said.contains("it is interrupted: ") && said.contains("notes"),
        "{said}"
    );
}

#[tokio::test]
async fn a_daemon_that_scans_is_said_to_with_its_rows() {
    let mut scene = recorded_notes().await;
    let long = "x ".repeat(400);
    let rows = format!("INSERT INTO notes SELECT n, n || '{long}' FROM generate_series(1, 2000) n");
    scene.sql(&rows).await;
    let daemon = scene.spawn_daemon_with(&[]);
    daemon
        .wait_for_line("2000 existing rows to embed", TIMEOUT)
        .await;
    let scanning = "SELECT stats -> 'scan' ->> 'rows_total' FROM jobs";
    scene.wait_for(scanning, "2000").await;
    let (status, said) = wait(&scene, &NOW).await;
    assert!(
        status == Some(4) && said.contains(" of 2,000 rows done (after 0s)"),
        "{said}"
    );
}

#[tokio::test]
async fn a_target_without_the_slot_of_the_job_is_named() {
    let mut scene = recorded_notes().await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    let slot = "SELECT stats -> 'slot' ->> 'name' IS NOT NULL FROM jobs";
    scene.wait_for(slot, "true").await;
    let elsewhere = TestDatabase::create(server::shared()).await;
    let target = elsewhere.uri();
    let (status, said) = wait(&scene, &[&NOW[..], &["--target", &target]].concat()).await;
    assert!(
        status == Some(4)
            && said.contains("error: job 1 has no replication slot at the moment in ")
            && said.contains(&format!("/{}", elsewhere.name()))
            && said.contains("its daemon has recorded the slot lantern_")
            && said.contains("if --target names another server"),
        "{said}"
    );
    scene.sql("ALTER TABLE jobs DROP stats").await;
    let (_, said) = wait(&scene, &[&NOW[..], &["--target", &target]].concat()).await;
    assert!(said.contains("which --target must name too"), "{said}");
}

#[tokio::test]
async fn the_state_of_a_job_that_has_ended_comes_before_its_login() {
    let scene = notes_scene().await;
    scene
        .sql(
            "UPDATE jobs SET db_connection = 'postgresql://nobody:wrong@127.0.0.1:1/d', init_failed_at = now(), \
             init_failure_reason = 'password authentication failed'",
        )
        .await;
    let (status, said) = wait(&scene, &[]).await;
    assert!(
        status == Some(1)
            && said.starts_with("error: job 1 has failed, ")
            && said.contains("password authentication failed; remove the cause"),
        "{said}"
    );
    scene.sql("UPDATE jobs SET canceled_at = true").await;
    let (status, said) = wait(&scene, &["--json"]).await;
    let object: serde_json::Value = serde_json::from_str(&said).expect(&said);
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(object["state"], "canceled", "{said}");
    assert!(object["position"].is_null(), "{said}");
}

#[tokio::test]
async fn no_table_is_named_that_the_view_does_not_have() {
    let mut scene = notes_scene().await;
    let role = format!("watcher_of_{}", scene.database.name());
    scene.sql(&format!("CREATE ROLE {role}")).await;
    let script = format!("\\set role {role}\n{}", paths::read("sql/searchers.sql"));
    scene.database.psql(&script).await;
    scene.start_daemon().await;
    scene.put(1, TIDES).await;
    let uri = scene.database.uri();
    let view = [
        "--table",
        "jobs_for_searchers",
        "--target",
        &uri,
        "--timeout",
        "90s",
    ];
    let (status, said) = wait(&scene, &view).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains(
            r#"or in the failures table, which "public"."jobs_for_searchers" does not show"#
        ) && !said.contains("jobs_for_searchers_failures"),
        "{said}"
    );
    scene.stop_daemon().await;
    scene
        .sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}
