//! What binds the [`testkit`] to this package: the program under test, which Cargo names to its integration tests
//! alone.

use serde_json::Value;
use testkit::jobs::{Job, insert_job};
use testkit::scene::NOTES;
use testkit::{Process, Program, Scene, TestDatabase, server};

/// Counts the locks of jobs that daemons hold.
pub const LOCKS: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                         WHERE l.locktype = 'advisory' AND l.objsubid = 1 \
                         AND a.datname = current_database() AND a.application_name = 'lantern-cli: jobs'";

/// The program under test.
pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_lantern-cli")).without_yielding()
}

/// Starts a daemon on the table `jobs` of `database`; `arguments` come last.
pub fn start_daemon(database: &TestDatabase, arguments: &[&str]) -> Process {
    let uri = database.uri();
    program().start_daemon(&[&["--uri", &uri, "--table", "jobs"], arguments].concat())
}

/// A scene on the shared server, with these tables and no job yet.
pub async fn scene_with(tables: &str) -> Scene {
    Scene::new(program(), server::shared(), tables).await
}

/// A scene on the shared server, with the table `notes` and its job.
pub async fn notes_scene() -> Scene {
    let scene = scene_with(NOTES).await;
    scene.job("notes", "body").await;
    scene
}

/// Adds a column for vectors to `notes`, and a job for it with this model and these `runtime_params`; returns its id.
pub async fn add_job(scene: &Scene, model: &str, column: &str, params: &str) -> i32 {
    let params = format!("'{params}'");
    let job = Job {
        embedding_model: model,
        options: &[("runtime_params", &params)],
        ..Job::on(&scene.database, "notes", "body", column)
    };
    scene
        .sql(&format!("ALTER TABLE notes ADD {column} real[]"))
        .await;
    insert_job(&scene.client, job).await
}

/// What `lantern-cli check` prints as JSON, with these arguments. It exits with 0 exactly where the job would start.
pub async fn check(arguments: &[&str]) -> Value {
    let output = program()
        .run(&[&["check", "--json"], arguments].concat())
        .await;
    let printed = String::from_utf8_lossy(&output.stdout);
    let found: Value = serde_json::from_str(&printed).unwrap_or_else(|_| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{arguments:?}: {printed}{errors}")
    });
    let would_start = found["would_start"] == true;
    assert_eq!(
        output.status.code(),
        Some(i32::from(!would_start)),
        "{found}"
    );
    found
}

/// The texts of the points with this outcome.
pub fn texts<'a>(checked: &'a Value, outcome: &str) -> Vec<&'a str> {
    let points = checked["points"].as_array().expect("a list of points");
    let found = points.iter().filter(|point| point["outcome"] == outcome);
    found.filter_map(|point| point["text"].as_str()).collect()
}

/// The text of the point with this title; "" if there is none.
pub fn text<'a>(checked: &'a Value, title: &str) -> &'a str {
    let points = checked["points"].as_array().expect("a list of points");
    let found = points.iter().find(|point| point["point"] == title);
    found
        .and_then(|point| point["text"].as_str())
        .unwrap_or_default()
}

/// Asserts that `check` says of a failed job, whose cause is still there, what the job has failed with: word for word.
pub async fn assert_check_says(uri: &str, job: i32, reason: &str, arguments: &[&str]) {
    let job = job.to_string();
    let checked = check(&[&["--uri", uri, "--job", &job], arguments].concat()).await;
    let failed = texts(&checked, "failed");
    assert!(failed.contains(&reason), "{reason}\n\n{failed:#?}");
}
