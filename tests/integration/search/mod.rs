//! `search`, and the index that a job has the daemon build.

mod conditions;
mod create_index;
mod document;
mod indexes;
mod interrupted_builds;
mod passages;
mod rights;

use testkit::Scene;
use testkit::scene::VOCABULARY;

use crate::support::{notes_scene, program};

/// A scene whose texts have their vectors, without a daemon; `None` where the server has no pgvector, which is reported.
async fn searchable_notes() -> Option<Scene> {
    let scene = notes_scene().await;
    if scene.database.skips_vector() {
        return None;
    }
    scene.write(&VOCABULARY[..]).await;
    scene
        .sql("UPDATE notes SET embedding = t.vector, views = id FROM truth t WHERE t.body = notes.body")
        .await;
    // With so few rows the planner would compare every vector.
    scene.set_default("enable_seqscan", "off").await;
    scene.set_default("enable_sort", "off").await;
    Some(scene)
}

/// Searches for the moon; returns the status and what was printed to either stream.
async fn search(scene: &Scene, more: &[&str]) -> (Option<i32>, String, String) {
    let uri = scene.database.uri();
    let arguments = [&["search", "--uri", &uri, "--job", "1", "the moon"], more].concat();
    let output = program().run(&arguments).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The same, as JSON.
async fn found(scene: &Scene, more: &[&str]) -> serde_json::Value {
    let (status, printed, said) = search(scene, &[more, &["--json"]].concat()).await;
    assert_eq!(status, Some(0), "{more:?}: {said}");
    serde_json::from_str(&printed).expect("JSON")
}

/// The ids of the rows that are found, nearest first.
async fn ids(scene: &Scene, more: &[&str]) -> Vec<String> {
    let rows = found(scene, more).await;
    let rows = rows.as_array().expect("an array");
    let id = |row: &serde_json::Value| row["id"].as_str().expect("an id").to_owned();
    rows.iter().map(id).collect()
}

/// What `--explain` says of the index.
async fn reason(scene: &Scene, more: &[&str]) -> String {
    let explained = found(scene, &[more, &["--explain"]].concat()).await;
    explained["reason"].as_str().expect("a reason").to_owned()
}
