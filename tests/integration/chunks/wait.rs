//! Whoever has waited finds the passages of what was committed before, and none of what was deleted.

use testkit::{Scene, paths};

use super::documents::{text, wrong};
use super::scene::{DOCS, chunk_job, chunk_scene};
use crate::support::program;

const CALL: &str = "SELECT lantern_wait_for_embeddings(1, pg_current_wal_insert_lsn(), '90 s')";

/// A job that streams, with short passages, and the function.
async fn waiting_scene(arguments: &[&str]) -> Scene {
    let mut scene = chunk_scene(DOCS).await;
    let params = r#"'{"chunk_tokens": 40}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", params)]).await;
    let script = paths::read("sql/wait_for_embeddings.sql");
    scene.database.psql(&script).await;
    scene.spawn_daemon_with(arguments);
    scene.wait_for_backfill().await;
    scene
}

/// Changes documents in every way, and asks after each whether the passages are right at the moment when a wait returns.
async fn changes_are_waited_for(scene: &Scene, wait: impl AsyncFn()) {
    let long = text(1, 12, "end");
    let edited = long.replace("number 1004", "number one thousand");
    for (id, body) in [(1, long.as_str()), (2, "Short."), (1, &edited), (2, "")] {
        scene.put_into("docs", id, body).await;
        wait().await;
        assert_eq!(wrong(scene, "c.chunk").await, "", "after {id} {body:.30}");
    }
    let count = "SELECT count(*) FROM docs_chunks";
    assert_ne!(scene.value(count).await, "0");
    for (statement, ids) in [
        ("UPDATE docs SET id = 7 WHERE id = 1", "7"),
        ("INSERT INTO docs VALUES (8, 't', 'Another one.')", "7 8"),
        ("DELETE FROM docs WHERE id = 7", "8"),
        ("TRUNCATE docs", ""),
    ] {
        scene.sql(statement).await;
        wait().await;
        assert_eq!(wrong(scene, "c.chunk").await, "", "after {statement}");
        let found = "SELECT string_agg(DISTINCT id::text, ' ') FROM docs_chunks";
        assert_eq!(scene.value(found).await, ids, "after {statement}");
    }
}

#[tokio::test]
async fn the_function_returns_when_the_passages_of_a_commit_are_there() {
    let scene = waiting_scene(&[]).await;
    let client = scene.session("").await;
    let call = async || {
        let done: bool = client.query_one(CALL, &[]).await.expect("it waits").get(0);
        assert!(done);
    };
    changes_are_waited_for(&scene, call).await;
}

/// Beside a job that shares its slot with others, this one has its own.
#[tokio::test]
async fn with_a_slot_for_each_database_the_function_finds_the_jobs_own() {
    let mut scene = chunk_scene(&format!("{DOCS}; {}", testkit::scene::NOTES)).await;
    let params = r#"'{"chunk_tokens": 40}'"#;
    chunk_job(&scene, "docs_chunks", &[("runtime_params", params)]).await;
    scene.job("notes", "body").await;
    let script = paths::read("sql/wait_for_embeddings.sql");
    scene.database.psql(&script).await;
    scene.spawn_daemon_with(&["--slots", "database"]);
    let streaming =
        "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND active";
    scene.wait_for(streaming, "2").await;
    let finished = "SELECT bool_and(init_finished_at >= init_started_at) FROM jobs";
    scene.wait_for(finished, "true").await;
    let client = scene.session("").await;
    scene.put(1, testkit::scene::TIDES).await;
    let both = CALL.replace("(1,", "(2,");
    for call in [CALL, &both] {
        scene.put_into("docs", 1, &text(1, 6, "end")).await;
        let done: bool = client.query_one(call, &[]).await.expect("it waits").get(0);
        assert!(done, "{call}");
    }
    let done: bool = client.query_one(CALL, &[]).await.expect("it waits").get(0);
    assert!(done);
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    assert_eq!(scene.wrong_vectors("notes", "body").await, "");
}

#[tokio::test]
async fn the_command_waits_for_passages_and_names_documents_that_have_none() {
    let scene = waiting_scene(&[]).await;
    let uri = scene.database.uri();
    let arguments = ["wait", "--uri", &uri, "--job", "1", "--timeout", "90s"];
    let wait = async || {
        let output = program().run(&arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    changes_are_waited_for(&scene, wait).await;
    scene
        .sql("ALTER TABLE docs_chunks ADD CONSTRAINT keeps CHECK (id <> 5)")
        .await;
    scene.put_into("docs", 5, "It cannot be written.").await;
    scene.put_into("docs", 6, "It can.").await;
    let output = program().run(&arguments).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        said.contains(r#"{"id":"5"}"#) && said.contains("keeps"),
        "{said}"
    );
    let ids = "SELECT string_agg(DISTINCT id::text, ' ') FROM docs_chunks";
    assert_eq!(scene.value(ids).await, "6");
}

/// Documents that existed before the job are waited for by the command alone.
#[tokio::test]
async fn documents_that_existed_before_the_job_are_waited_for() {
    let mut scene = chunk_scene(DOCS).await;
    for (id, seed) in (1..=20).zip(1..) {
        scene.put_into("docs", id, &text(seed, 3, "end")).await;
    }
    chunk_job(&scene, "docs_chunks", &[]).await;
    scene.spawn_daemon();
    let uri = scene.database.uri();
    let arguments = ["wait", "--uri", &uri, "--job", "1", "--timeout", "90s"];
    let output = program().run(&arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(wrong(&scene, "c.chunk").await, "");
    let count = "SELECT count(DISTINCT id) FROM docs_chunks";
    assert_eq!(scene.value(count).await, "20");
}
