//! `runtime_params`: how a job uses its model.

use testkit::jobs::wait_for_failure;
use testkit::tiny_model::TinyModel;
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{Scene, TestDatabase, data_path, server};

use crate::support::{add_job, program};

/// A table for vectors under several options, and the folder of the tiny model.
async fn scene() -> (tempfile::TempDir, Scene) {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let database = TestDatabase::with_vector(server::shared()).await;
    let scene = Scene::without_vectors(program, database).await;
    scene
        .sql(
            "ALTER TABLE jobs ADD runtime_params jsonb, ADD fingerprint_column text;
             CREATE TABLE notes (id int PRIMARY KEY, body text)",
        )
        .await;
    (folder, scene)
}

/// The vector in this column.
async fn vector(scene: &Scene, column: &str, id: i32) -> Vec<f32> {
    let query = format!("SELECT {column} FROM notes WHERE id = {id}");
    scene
        .client
        .query_one(&query, &[])
        .await
        .expect("a row")
        .get(0)
}

fn assert_near(left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len());
    let pairs = left.iter().zip(right);
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{left:?} is not {right:?}");
}

fn normalized(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter().map(|value| value / length).collect()
}

/// The mean of windows of 16 words, of which two overlap.
fn mean_of_windows(words: &[String]) -> Vec<f32> {
    let mut sum = vec![0.0; 8];
    let mut start = 0;
    loop {
        let window = &words[start..words.len().min(start + 16)];
        let vector = TinyModel::One.vector(&window.join(" "));
        let weighted = vector.iter().map(|value| value * window.len() as f32);
        sum.iter_mut()
            .zip(weighted)
            .for_each(|(sum, value)| *sum += value);
        if start + 16 >= words.len() {
            return normalized(&sum);
        }
        start += 14;
    }
}

#[tokio::test]
async fn each_job_has_the_vectors_of_its_own_options_and_the_model_is_loaded_once() {
    let (_folder, mut scene) = scene().await;
    let words: Vec<String> = (1..=50).map(|n| format!("w{n}")).collect();
    let (short, long) = ("w7 w8 w9".to_owned(), words.join(" "));
    scene
        .execute(
            "INSERT INTO notes VALUES (1, $1), (2, $2), (3, $1)",
            &[&short, &long],
        )
        .await;
    for (column, params) in [
        ("plain", "{}"),
        ("raw", r#"{"normalize": false}"#),
        ("few", r#"{"dimensions": 4, "force": true}"#),
        ("cut", r#"{"max_tokens": 16}"#),
        ("mean", r#"{"max_tokens": 16, "long_text": "mean"}"#),
        ("last", r#"{"pooling": "lasttoken"}"#),
        ("told", r#"{"prompt": "w1 w2 "}"#),
    ] {
        add_job(&scene, TinyModel::One.name(), column, params).await;
    }
    scene.start_daemon().await;
    let model = TinyModel::One;
    for (id, text) in [(1, &short), (2, &long), (3, &short)] {
        assert_near(&vector(&scene, "plain", id).await, &model.vector(text));
        let raw = vector(&scene, "raw", id).await;
        assert_near(&normalized(&raw), &model.vector(text));
        let length: f32 = raw.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() > 1e-3, "{raw:?} is normalized");
        let few = normalized(&model.vector(text)[..4]);
        assert_near(&vector(&scene, "few", id).await, &few);
        let last = text.rsplit(' ').next().expect("a word");
        assert_near(&vector(&scene, "last", id).await, &model.vector(last));
        let told = model.vector(&format!("w1 w2 {text}"));
        assert_near(&vector(&scene, "told", id).await, &told);
    }
    assert_near(&vector(&scene, "cut", 1).await, &model.vector(&short));
    assert_near(
        &vector(&scene, "cut", 2).await,
        &model.vector(&words[..16].join(" ")),
    );
    assert_near(&vector(&scene, "mean", 1).await, &model.vector(&short));
    assert_near(&vector(&scene, "mean", 2).await, &mean_of_windows(&words));
    let log = scene.daemon().log();
    assert_eq!(log.matches("model loaded").count(), 1, "{log}");
    // Averaged texts are whole, and only cut ones are warned of.
    let cut = "1 text of \"public\".\"notes\" so far is longer than the 16 tokens";
    assert_eq!(log.matches("longer than the 16 tokens").count(), 1, "{log}");
    assert!(log.contains(cut), "{log}");
}

#[tokio::test]
async fn params_that_are_wrong_or_do_not_suit_the_model_are_refused_with_the_remedy() {
    let (_folder, mut scene) = scene().await;
    let mut refused = Vec::new();
    for (number, (params, said)) in [
        ("[]", "runtime_params: they must be an object"),
        (r#"{"poolng": "cls"}"#, "the key \"poolng\" is not known"),
        (r#"{"poolng": "cls"}"#, "did you mean pooling?"),
        (r#"{"pooling": "men"}"#, "one of cls, max, mean"),
        (r#"{"max_tokens": 97}"#, "reads at most 96 tokens"),
        (r#"{"dimensions": 4}"#, "\"force\": true"),
        (r#"{"dimensions": 9, "force": true}"#, "have 8 dimensions"),
        (r#"{"prompt_name": "query"}"#, "no prompts"),
    ]
    .into_iter()
    .enumerate()
    {
        let job = add_job(
            &scene,
            TinyModel::One.name(),
            &format!("bad{number}"),
            params,
        )
        .await;
        refused.push((job, said));
    }
    add_job(
        &scene,
        TinyModel::One.name(),
        "good",
        r#"{"pooling": "mean"}"#,
    )
    .await;
    scene.sql("INSERT INTO notes VALUES (1, 'w1')").await;
    scene.spawn_daemon();
    for (job, said) in refused {
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(said), "{said}: {reason}");
    }
    scene.wait_for("SELECT count(good) FROM notes", "1").await;
}

/// Runs a command on the only job; returns whether it succeeded and what it printed.
async fn run(scene: &Scene, folder: &tempfile::TempDir, command: &[&str]) -> (bool, String) {
    let (uri, job) = (
        scene.database.uri(),
        scene.value("SELECT id FROM jobs").await,
    );
    let [name, rest @ ..] = command else {
        panic!("no command");
    };
    let arguments = [&[*name, "--uri", &uri, "--job", &job], rest].concat();
    let output = program()
        .with_data_path(folder.path())
        .run(&arguments)
        .await;
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8(printed).expect("text"),
    )
}

#[tokio::test]
async fn commands_take_the_options_of_the_job_and_a_change_embeds_what_it_concerns() {
    let (folder, mut scene) = scene().await;
    scene
        .sql("INSERT INTO notes VALUES (1, 'w5'), (2, 'w6')")
        .await;
    add_job(
        &scene,
        TinyModel::One.name(),
        "embedding",
        r#"{"prompt": {"query": "w6 w6 w6 w6 w6 ", "document": ""}}"#,
    )
    .await;
    scene
        .sql("UPDATE jobs SET fingerprint_column = 'mark'")
        .await;
    scene.start_daemon().await;
    let nearest = async |scene: &Scene| {
        let search = ["search", "--limit", "1", "--format", "json", "w5"];
        let (_, printed) = run(scene, &folder, &search).await;
        let rows: serde_json::Value = serde_json::from_str(&printed).expect(&printed);
        rows[0]["body"].as_str().expect("a text").to_owned()
    };
    assert_eq!(nearest(&scene).await, "w6");

    // Another prompt for queries changes no row.
    let versions = scene.row_versions().await;
    scene
        .sql(r#"UPDATE jobs SET runtime_params = '{"prompt": {"query": ""}}'"#)
        .await;
    assert_eq!(nearest(&scene).await, "w5");
    scene.sql("INSERT INTO notes VALUES (3, 'w3')").await;
    scene.wait_until_confirmed().await;
    scene.sql("DELETE FROM notes WHERE id = 3").await;
    assert_eq!(scene.row_versions().await, versions);

    // Another pooling changes the row that has two words.
    scene.put(2, "w7 w8").await;
    scene.wait_until_confirmed().await;
    scene
        .sql(r#"UPDATE jobs SET runtime_params = '{"pooling": "cls"}'"#)
        .await;
    let expected = TinyModel::One.vector("w7");
    let changed = "the row has the vector of the other pooling";
    wait_until(changed, TIMEOUT, async || {
        let found = vector(&scene, "embedding", 2).await;
        let worst = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        (worst < 1e-5).then_some(()).ok_or(found)
    })
    .await;
    scene.stop_daemon().await;
    let (sound, printed) = run(&scene, &folder, &["verify", "--full"]).await;
    assert!(sound, "{printed}");

    // Without the daemon, `verify` and `resync` go by the row.
    scene.sql("UPDATE jobs SET runtime_params = NULL").await;
    let (sound, printed) = run(&scene, &folder, &["verify"]).await;
    assert!(!sound && printed.contains("2  stale vectors"), "{printed}");
    let (repaired, printed) = run(&scene, &folder, &["resync"]).await;
    assert!(repaired, "{printed}");
    assert_near(
        &vector(&scene, "embedding", 2).await,
        &TinyModel::One.vector("w7 w8"),
    );
}
