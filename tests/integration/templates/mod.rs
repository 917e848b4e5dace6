//! Jobs with a template: the vector is of several columns of a row.

mod changes;
mod commands;
mod definitions;
mod refusals;
mod types;

use nix::sys::signal::Signal;
use testkit::Scene;
use testkit::jobs::{Job, insert_job};
use testkit::vectors::wait_for_vectors;
use testkit::wait::TIMEOUT;

use crate::support::scene_with;

/// A table with two columns for a template, and one for none.
const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, title text, body text, views int NOT NULL DEFAULT 0, \
                     embedding vector(384))";

/// A template over two columns, and the same in SQL.
const TITLE_AND_BODY: &str = "{title}\n{body}";
const COMPOSED: &str = "CASE WHEN body <> '' THEN COALESCE(title, '') || E'\\n' || body END";

/// A scene with these tables, and a job on `notes` with this template.
async fn templated(tables: &str, template: &str) -> Scene {
    templated_with(tables, template, &[]).await
}

/// As [`templated`], with further columns of the jobs table, each with its value as SQL.
async fn templated_with(tables: &str, template: &str, options: &[(&str, &str)]) -> Scene {
    let scene = scene_with(tables).await;
    job(&scene, template, options).await;
    scene
}

/// Inserts a job on `notes` with this template; returns its id.
async fn job(scene: &Scene, template: &str, options: &[(&str, &str)]) -> i32 {
    scene
        .sql(
            "ALTER TABLE jobs ADD COLUMN IF NOT EXISTS runtime_params jsonb, \
             ADD COLUMN IF NOT EXISTS fingerprint_column text",
        )
        .await;
    let params = serde_json::json!({ "template": template }).to_string();
    let params = format!("'{}'", params.replace('\'', "''"));
    let options = [&[("runtime_params", params.as_str())], options].concat();
    let job = Job {
        options: &options,
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await
}

/// Waits until all that has happened so far is confirmed, and asserts that each vector of `notes` is that of the text
/// `composed`, which is SQL.
async fn caught_up(scene: &Scene, composed: &str) {
    scene.wait_until_confirmed().await;
    wait_for_vectors(&scene.client, "notes", composed, "embedding").await;
}

/// Stops the daemon; returns how many texts got vectors from it.
async fn stop(scene: &mut Scene) -> u64 {
    scene.daemon().signal(Signal::SIGTERM);
    let line = scene.daemon().wait_for_line("stopped; ", TIMEOUT).await;
    let counts = line.split_once("stopped; ").expect("the line").1;
    let count = counts.split_whitespace().find_map(|word| word.parse().ok());
    scene.daemon().wait(TIMEOUT).await;
    scene.kill_daemon();
    count.unwrap_or_else(|| panic!("no number in {line}"))
}
