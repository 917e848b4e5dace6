//! Scenes of jobs with a table for passages.

use testkit::Scene;
use testkit::jobs::{Job, insert_job};

use crate::support::scene_with;

/// The table with the documents of most tests.
pub const DOCS: &str = "CREATE TABLE docs (id int PRIMARY KEY, title text, body text)";

/// A scene whose jobs table has the columns that jobs with passages use, and with these tables.
pub async fn chunk_scene(tables: &str) -> Scene {
    let scene = scene_with(tables).await;
    with_options(&scene).await;
    scene
}

/// Adds the columns that jobs with passages use to the jobs table.
pub async fn with_options(scene: &Scene) {
    scene
        .sql(
            "ALTER TABLE jobs ADD chunk_table text, ADD runtime_params jsonb, ADD backfill bool, ADD write_connection text, \
             ADD fingerprint_column text, ADD replaces int, ADD column_type text, ADD create_index text",
        )
        .await;
}

/// A job on `docs.body` with passages in this table, and with these options as SQL.
pub async fn chunk_job(scene: &Scene, chunk_table: &str, options: &[(&str, &str)]) -> i32 {
    chunk_job_at(scene, &scene.database.uri(), chunk_table, options).await
}

/// [`chunk_job`] with another connection string.
pub async fn chunk_job_at(
    scene: &Scene,
    uri: &str,
    chunk_table: &str,
    options: &[(&str, &str)],
) -> i32 {
    let chunk_table = format!("'{chunk_table}'");
    let mut all = vec![("chunk_table", chunk_table.as_str())];
    all.extend(options);
    let job = Job {
        db_connection: uri.to_owned(),
        options: &all,
        ..Job::on(&scene.database, "docs", "body", "embedding")
    };
    insert_job(&scene.client, job).await
}
