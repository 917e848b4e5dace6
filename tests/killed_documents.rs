//! A daemon that dies between any two steps of a document. A binary of its own: the places where it dies exist only with the
//! feature `failpoints`.

use std::os::unix::process::ExitStatusExt;

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_for};
use testkit::{Program, Scene, TestDatabase, data_path, server};

const TABLES: &str = "ALTER TABLE jobs ADD chunk_table text, ADD runtime_params jsonb; \
    CREATE TABLE docs (id int PRIMARY KEY, body text)";

/// A text of so many lines, each of which has a mark of its version.
fn text(lines: u64, version: u64) -> String {
    let line = |number| {
        let words =
            (0..7).map(|place| format!("w{}", (number * 31 + place * 17 + lines) % 390 + 1));
        let words: Vec<String> = words.collect();
        format!("v{version} {}.\n\n", words.join(" "))
    };
    (0..lines).map(line).collect()
}

/// What is wrong with the passages; "" for nothing.
async fn wrong(scene: &Scene) -> String {
    let query = "SELECT d.id, chunk_seq, chunk, embedding::real[], chunk_start = min(chunk_start) OVER w AND chunk_seq = 0 \
            OR chunk_seq > 0, substr(body, chunk_start + 1, chunk_end - chunk_start) = chunk, \
            max(chunk_end) OVER (PARTITION BY d.id) >= length(rtrim(body, E'\\n ')) AND count(*) OVER (PARTITION BY d.id) \
            = max(chunk_seq) OVER (PARTITION BY d.id) + 1 \
        FROM docs d FULL JOIN docs_chunks c USING (id) WHERE body <> '' OR c.id IS NOT NULL \
        WINDOW w AS (PARTITION BY d.id ORDER BY chunk_seq)";
    let rows = scene.client.query(query, &[]).await.expect("the passages");
    for row in rows {
        let (id, seq): (Option<i32>, Option<i32>) = (row.get(0), row.get(1));
        let is_right = (4..7).all(|place| row.get::<_, Option<bool>>(place) == Some(true));
        let (chunk, vector): (Option<String>, Option<Vec<f32>>) = (row.get(2), row.get(3));
        let right = TinyModel::One.vector(chunk.as_deref().unwrap_or_default());
        let pairs = right.iter().zip(vector.iter().flatten());
        let is_near =
            vector.is_some() && pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-3;
        if !is_right || !is_near {
            return format!("{id:?} {seq:?}: {is_right} {is_near}");
        }
    }
    String::new()
}

/// The daemon dies at `point`, while documents come and change.
async fn killed_at(point: &str) {
    let folder = data_path::with_tiny_models();
    let program = Program::new(env!("CARGO_BIN_EXE_lantern-cli")).with_data_path(folder.path());
    let database = TestDatabase::with_vector(server::shared()).await;
    let mut scene = Scene::without_vectors(program.clone(), database).await;
    scene.sql(TABLES).await;
    for id in 1..=6 {
        scene.put_into("docs", id, &text(id as u64 * 9, 0)).await;
    }
    let options = [
        ("chunk_table", "'docs_chunks'"),
        ("runtime_params", r#"'{"chunk_tokens": 24}'"#),
    ];
    let job = Job {
        embedding_model: TinyModel::One.name(),
        options: &options,
        ..Job::on(&scene.database, "docs", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    for round in 1..=4u64 {
        let dies = (
            "FAILPOINTS",
            &*format!("{point}={}*off->1*return", round % 3),
        );
        let hosts = ("LANTERN_ALLOW_HOST", "127.0.0.1,localhost");
        let uri = scene.database.uri();
        let mut daemon = program.start_daemon_with_env(&[dies, hosts], &["--uri", &uri]);
        // Another document each time, until it dies.
        let mut id = 100 * round as i32;
        while daemon.exit_status().is_none() {
            id += 1;
            scene
                .put_into("docs", id % 9 + 1, &text(id as u64 % 40 + 1, round))
                .await;
            scene
                .sql(&format!("DELETE FROM docs WHERE id = {}", (id + 4) % 9 + 1))
                .await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let (status, _) = daemon.wait(TIMEOUT).await;
        assert_eq!(status.signal(), Some(9), "{status}: {}", daemon.log());
    }
    scene.spawn_daemon();
    scene.wait_for_backfill().await;
    wait_for("passages", TIMEOUT, String::new(), async || {
        wrong(&scene).await
    })
    .await;
    scene.wait_until_confirmed().await;
    assert_eq!(wrong(&scene).await, "");
}

#[tokio::test]
async fn a_daemon_that_dies_behind_a_reading_loses_nothing() {
    killed_at("documents-read").await;
}

#[tokio::test]
async fn a_daemon_that_dies_behind_a_cut_loses_nothing() {
    killed_at("documents-cut").await;
}

#[tokio::test]
async fn a_daemon_that_dies_with_all_vectors_of_a_document_loses_nothing() {
    killed_at("documents-embedded").await;
}

#[tokio::test]
async fn a_daemon_that_dies_within_a_write_back_loses_nothing() {
    killed_at("write-back-sent").await;
}

#[tokio::test]
async fn a_daemon_that_dies_without_knowing_of_its_commit_loses_nothing() {
    killed_at("write-back-after-commit").await;
}
