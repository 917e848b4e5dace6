//! Jobs whose vectors servers compute.

mod keys;
mod many_servers;
mod own_servers;
mod troubles;
mod vectors;

use testkit::jobs::{Job, insert_job};
use testkit::stub_engine::vector_of;
use testkit::wait::{TIMEOUT, wait_for};
use testkit::{Scene, StubEngine};

use crate::support::scene_with;

/// The length of a stub's vectors.
const DIMENSIONS: usize = 8;

/// A scene with the table `notes`, whose vectors are a stub's, and no job.
pub async fn notes() -> Scene {
    let scene = scene_with(
        "CREATE TABLE notes (id int PRIMARY KEY, body text, views int NOT NULL DEFAULT 0, embedding real[])",
    )
    .await;
    scene
        .sql(
            "ALTER TABLE jobs ADD runtime text, ADD runtime_params jsonb, ADD last_error text, \
              ADD last_error_at timestamptz, ADD stats jsonb",
        )
        .await;
    scene
}

/// Inserts a job on `notes` for a model of a provider. `params` are members of a JSON object.
pub async fn job(scene: &Scene, runtime: &str, model: &str, params: &str) -> i32 {
    let options = [
        ("runtime", format!("'{runtime}'")),
        ("runtime_params", format!("'{{{params}}}'")),
    ];
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let job = Job {
        embedding_model: model,
        options: &options,
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await
}

/// The member `base_url` for these servers.
pub fn at(stubs: &[&StubEngine]) -> String {
    let urls: Vec<String> = stubs
        .iter()
        .map(|stub| format!("\"{}\"", stub.url()))
        .collect();
    format!("\"base_url\": [{}]", urls.join(", "))
}

/// Inserts rows from `from` to `to` with a text each.
pub async fn load(scene: &Scene, from: i32, to: i32) {
    scene
        .sql(&format!(
            "INSERT INTO notes (id, body) SELECT n, 'text number ' || n FROM generate_series({from}, {to}) n"
        ))
        .await;
}

/// The keys of rows whose vector is not that of their text, as a stub computes it; `skipped` are left out.
pub async fn wrong(scene: &Scene, skipped: &[i32]) -> Vec<i32> {
    let query = "SELECT id, body, embedding FROM notes ORDER BY id";
    let rows = scene.client.query(query, &[]).await.expect("the rows");
    let mut wrong = Vec::new();
    for row in rows {
        let (id, text, vector): (i32, Option<&str>, Option<Vec<f32>>) =
            (row.get(0), row.get(1), row.get(2));
        let expected = text
            .filter(|text| !text.is_empty())
            .map(|text| vector_of(text, DIMENSIONS));
        let is_right = match (&expected, &vector) {
            (None, None) => true,
            (Some(expected), Some(vector)) => {
                vector.len() == expected.len()
                    && vector
                        .iter()
                        .zip(expected)
                        .all(|(a, b)| (a - b).abs() < 1e-6)
            }
            _ => false,
        };
        if !is_right && !skipped.contains(&id) {
            wrong.push(id);
        }
    }
    wrong
}

/// Waits until every row but these has the vector of its text.
pub async fn wait_for_all_but(scene: &Scene, skipped: &[i32]) {
    let ask = async || wrong(scene, skipped).await;
    wait_for("every vector is right", TIMEOUT, Vec::new(), ask).await;
}
