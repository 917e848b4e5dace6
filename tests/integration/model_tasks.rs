//! Models with tasks: the graph takes the number of one, and has weights of its own for each.

use std::collections::BTreeMap;

use testkit::jobs::wait_for_failure;
use testkit::reference::{Case, TOLERANCE, cases};
use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Scene, TestDatabase, data_path, server};

use crate::support::{add_job, program};

/// The vectors of a case of the model with tasks.
fn case(name: &str) -> Case {
    let mut cases = cases().into_iter();
    cases.find(|case| case.name == name).expect("such a case")
}

/// A table with the texts of the cases, whose numbers are the places of the texts. The folder has the model.
async fn scene(case: &Case) -> (tempfile::TempDir, Scene) {
    let folder = data_path::with_tiny_models();
    case.write_to(&folder.path().join("models"));
    let program = program().with_data_path(folder.path());
    let database = TestDatabase::with_vector(server::shared()).await;
    let scene = Scene::without_vectors(program, database).await;
    scene
        .sql(
            "ALTER TABLE jobs ADD runtime_params jsonb;
             CREATE TABLE notes (id int PRIMARY KEY, body text)",
        )
        .await;
    for (id, text) in (0_i32..).zip(&case.texts) {
        let insert = "INSERT INTO notes VALUES ($1, $2)";
        scene.execute(insert, &[&id, text]).await;
    }
    (folder, scene)
}

/// The vectors in this column.
async fn vectors(scene: &Scene, column: &str) -> Vec<Vec<f32>> {
    let query = format!("SELECT {column} FROM notes WHERE {column} IS NOT NULL ORDER BY id");
    let rows = scene.client.query(&query, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the column has the vectors of this case.
async fn wait_for_vectors(scene: &Scene, column: &str, case: &Case) {
    let awaited = format!("{column} has the vectors of {}", case.name);
    wait_until(&awaited, TIMEOUT, async || {
        let found = vectors(scene, column).await;
        let is_complete = found.len() == case.vectors.len();
        let difference = is_complete.then(|| case.difference(&found));
        (difference.is_some_and(|difference| difference <= TOLERANCE))
            .then_some(())
            .ok_or(difference)
    })
    .await;
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let pairs = left.iter().zip(right);
    pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The similarities that `search` prints for a text, by the ids of the rows.
async fn similarities(scene: &Scene, folder: &tempfile::TempDir, job: i32, text: &str) -> Vec<f64> {
    let (uri, job) = (scene.database.uri(), job.to_string());
    let arguments = ["search", "--uri", &uri, "--job", &job, "--limit", "100"];
    let arguments = [&arguments[..], &["--format", "json", text]].concat();
    let program = program().with_data_path(folder.path());
    let output = program.run(&arguments).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows: serde_json::Value = serde_json::from_str(&printed).expect(&printed);
    let similarity = |row: &serde_json::Value| {
        let id: i64 = row["id"].as_str()?.parse().ok()?;
        Some((id, row["similarity"].as_f64()?))
    };
    let rows = rows.as_array().expect("a list").iter().map(similarity);
    let found: Option<BTreeMap<i64, f64>> = rows.collect();
    found.expect(&printed).into_values().collect()
}

#[tokio::test]
async fn rows_have_the_vectors_of_their_task_and_search_asks_with_that_of_queries() {
    let (documents, queries) = (case("tasks, documents"), case("tasks, queries"));
    let (folder, mut scene) = scene(&documents).await;
    let model = documents.model();
    let plain = add_job(&scene, &model, "plain", "{}").await;
    let one = add_job(&scene, &model, "one", r#"{"task": "text-matching"}"#).await;
    let two = r#"{"task": {"document": "classification", "query": 2}}"#;
    let two = add_job(&scene, &model, "two", two).await;
    scene.start_daemon().await;
    let of_one = case("tasks, documents of one task");
    let of_two = case("tasks, documents of two");
    for (column, expected) in [("plain", &documents), ("one", &of_one), ("two", &of_two)] {
        wait_for_vectors(&scene, column, expected).await;
    }
    for (job, documents, queries) in [
        (plain, &documents, &queries),
        (one, &of_one, &case("tasks, queries of one task")),
        (two, &of_two, &case("tasks, queries of two")),
    ] {
        let (text, query) = (&queries.texts[1], &queries.vectors[1]);
        let found = similarities(&scene, &folder, job, text).await;
        let expected = documents.vectors.iter().map(|vector| cosine(vector, query));
        let pairs: Vec<(f64, f64)> = found.into_iter().zip(expected).collect();
        assert_eq!(pairs.len(), documents.vectors.len());
        let differs = |(found, expected): &(f64, f64)| (found - expected).abs() > 1e-4;
        assert!(!pairs.iter().any(differs), "{}: {pairs:?}", queries.name);
    }

    // Another task of queries concerns no row, and another one of documents every row.
    let version = "SELECT string_agg(xmin::text, ' ' ORDER BY id) FROM notes";
    let versions = scene.value(version).await;
    let set = async |scene: &Scene, params: &str| {
        let update = format!("UPDATE jobs SET runtime_params = '{params}' WHERE id = {plain}");
        scene.sql(&update).await;
    };
    set(&scene, r#"{"task": {"query": "separation"}}"#).await;
    wait_until("the job goes on with it", TIMEOUT, async || {
        let log = scene.daemon().log();
        let starts = log.matches(&format!("job={plain}: streaming from")).count();
        (starts == 2).then_some(()).ok_or(log)
    })
    .await;
    scene.wait_until_confirmed().await;
    assert_eq!(scene.value(version).await, versions);
    set(&scene, r#"{"task": "classification"}"#).await;
    wait_for_vectors(&scene, "plain", &of_two).await;
    let log = scene.daemon().log();
    assert_eq!(log.matches("model loaded").count(), 1, "{log}");
}

#[tokio::test]
async fn a_task_that_the_model_does_not_have_is_refused_with_those_that_it_has() {
    let known = case("tasks, documents");
    let (folder, mut scene) = scene(&known).await;
    // A copy whose files name no tasks.
    let models = folder.path().join("models");
    let unnamed = case("tasks, queries");
    unnamed.write_to(&models);
    let config = models.join(unnamed.model()).join("config.json");
    let names = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, names.replace("lora_adaptations", "other")).expect("written");

    let (known, unnamed) = (known.model(), unnamed.model());
    let tiny = TinyModel::One.name();
    let all =
        "it has retrieval.query, retrieval.passage, separation, classification, text-matching";
    let mut refused = Vec::new();
    for (number, (model, params, said)) in [
        (&*known, r#"{"task": "matching"}"#, all),
        (&known, r#"{"task": {"query": "clustering"}}"#, all),
        (&known, r#"{"task": 5}"#, "it has no task 5"),
        (&known, r#"{"task": true}"#, "task is true, but must be"),
        (&unnamed, "{}", "set task in runtime_params to the number"),
        (&unnamed, r#"{"task": "separation"}"#, "write the number"),
        (tiny, r#"{"task": "separation"}"#, "it has no input task_id"),
    ]
    .into_iter()
    .enumerate()
    {
        let job = add_job(&scene, model, &format!("bad{number}"), params).await;
        refused.push((number, job, said));
    }
    let told = r#"{"task": {"query": 0, "document": 1}, "prompt": "passage: "}"#;
    add_job(&scene, &unnamed, "told", told).await;
    scene.spawn_daemon();
    for (number, job, said) in refused {
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
        let column = format!("bad{number}");
        assert_eq!(vectors(&scene, &column).await.len(), 0, "{column}");
    }
    wait_for_vectors(&scene, "told", &case("tasks, documents")).await;
}
