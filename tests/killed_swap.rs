//! A daemon that dies in the moment in which a new column takes the name of the old one. A binary of its own: the places
//! where it dies exist only with the feature `failpoints`.

use std::os::unix::process::ExitStatusExt;

use testkit::jobs::{Job, insert_job};
use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_for};
use testkit::{Program, Scene, TestDatabase, data_path, server};

const TABLES: &str = "ALTER TABLE jobs ADD replaces int, ADD replaced_by int; \
    CREATE TABLE notes (id int PRIMARY KEY, body text); \
    INSERT INTO notes SELECT n, concat_ws(' ', 'w' || n, 'w' || n + 7) FROM generate_series(1, 20) n";

const COLUMNS: &str = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute \
    WHERE attrelid = 'notes'::regclass AND attnum > 0 AND attname ~ 'embedding'";

async fn add_job(scene: &Scene, model: TinyModel, options: &[(&str, &str)]) {
    let job = Job {
        embedding_model: model.name(),
        options,
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
}

/// How many rows do not have the vector of the second model.
async fn wrong(scene: &Scene) -> usize {
    let query = "SELECT body, embedding::real[] FROM notes";
    let rows = scene.client.query(query, &[]).await.expect("the rows");
    let is_wrong = |row: &&tokio_postgres::Row| {
        let (body, vector): (String, Option<Vec<f32>>) = (row.get(0), row.get(1));
        let right = TinyModel::Two.vector(&body);
        let pairs = right.iter().zip(vector.iter().flatten());
        vector.is_none() || pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1e-3
    };
    rows.iter().filter(is_wrong).count()
}

/// The daemon dies at `point`, which leaves these columns. The next one ends the change.
async fn killed_at(point: &str, columns: &str) {
    let folder = data_path::with_tiny_models();
    let program = Program::new(env!("CARGO_BIN_EXE_lantern-cli")).with_data_path(folder.path());
    let database = TestDatabase::with_vector(server::shared()).await;
    let mut scene = Scene::without_vectors(program.clone(), database).await;
    scene.sql(TABLES).await;
    add_job(&scene, TinyModel::One, &[]).await;
    let dies = ("FAILPOINTS", &*format!("{point}=return"));
    let hosts = ("LANTERN_ALLOW_HOST", "127.0.0.1,localhost");
    let uri = scene.database.uri();
    let mut daemon = program.start_daemon_with_env(&[dies, hosts], &["--uri", &uri]);
    scene.wait_for_backfill().await;
    add_job(&scene, TinyModel::Two, &[("replaces", "1")]).await;
    let (status, _) = daemon.wait(TIMEOUT).await;
    assert_eq!(status.signal(), Some(9), "{status}: {}", daemon.log());
    // The server notices a moment later.
    scene.wait_for(COLUMNS, columns).await;
    scene.put(1, "w5 w6").await;
    scene.spawn_daemon();
    let replaced = "SELECT max(replaced_by) FROM jobs WHERE id = 1 AND canceled_at";
    scene.wait_for(replaced, "2").await;
    scene
        .wait_for(COLUMNS, "embedding embedding_before_job_2")
        .await;
    wait_for("vectors", TIMEOUT, 0, async || wrong(&scene).await).await;
}

#[tokio::test]
async fn a_daemon_that_dies_before_the_commit_leaves_the_columns_as_they_were() {
    killed_at("changeover-before-commit", "embedding embedding_job_2").await;
}

#[tokio::test]
async fn a_daemon_that_dies_after_the_commit_leaves_its_record_to_the_next_one() {
    killed_at(
        "changeover-after-commit",
        "embedding embedding_before_job_2",
    )
    .await;
}
