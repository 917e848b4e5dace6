//! A job whose model is only on the hub.

use std::time::{Duration, Instant};

use testkit::hub::Fault;
use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{TestDatabase, server};

use super::*;

const TABLES: &str = "ALTER TABLE jobs ADD COLUMN last_error text; \
                      CREATE TABLE notes (id int PRIMARY KEY, body text, a real[], b real[])";

/// A database with two notes and a daemon on it, and no job.
async fn with_daemon(program: Program) -> testkit::Scene {
    let database = TestDatabase::with_vector(server::shared()).await;
    let mut jobs = testkit::Scene::without_vectors(program, database).await;
    jobs.sql(TABLES).await;
    jobs.sql("INSERT INTO notes (id, body) VALUES (1, 'w1 w2'), (2, 'w3')")
        .await;
    jobs.spawn_daemon();
    jobs
}

/// Inserts a job with this model that writes this column.
async fn insert(jobs: &testkit::Scene, model: &str, column: &str) -> i32 {
    let job = Job {
        embedding_model: model,
        ..Job::on(&jobs.database, "notes", "body", column)
    };
    insert_job(&jobs.client, job).await
}

/// Waits for the vector of a note.
async fn wait_for_vector(jobs: &testkit::Scene, column: &str, text: &str) {
    let query = format!("SELECT {column} FROM notes WHERE body = $1");
    let vector = wait_until("the vector is there", TIMEOUT, async || {
        let row = jobs.client.query_one(&query, &[&text]).await;
        let vector: Option<Vec<f32>> = row.expect("the note").get(0);
        vector.ok_or("NULL")
    })
    .await;
    assert_right(&vector, text);
}

#[tokio::test]
async fn a_job_gets_its_model_and_two_jobs_get_it_once() {
    let scene = Scene::new();
    let slow = Fault::Slow(Duration::from_millis(30));
    scene.hub.fail("signature", slow);
    let jobs = with_daemon(scene.program()).await;
    for column in ["a", "b"] {
        insert(&jobs, ID, column).await;
    }
    for column in ["a", "b"] {
        wait_for_vector(&jobs, column, "w1 w2").await;
        wait_for_vector(&jobs, column, "w3").await;
    }
    assert_eq!(scene.hub.downloads_of_graphs(), 1);
    let lists = scene.hub.requests().into_iter();
    let lists = lists.filter(|request| request.path.starts_with("/api/"));
    assert_eq!(lists.count(), 1);
}

#[tokio::test]
async fn an_outage_of_the_hub_is_waited_out_and_shown() {
    let scene = Scene::new();
    for _ in 0..5 {
        let failure = Fault::Status(503, "X-No", "no");
        scene.hub.fail("/api/models", failure);
    }
    let jobs = with_daemon(scene.program()).await;
    insert(&jobs, ID, "a").await;
    let reason = "SELECT last_error LIKE '%failure of its own (status 503)%' \
                  AND init_failed_at IS NULL FROM jobs";
    jobs.wait_for(reason, "true").await;
    wait_for_vector(&jobs, "a", "w3").await;
    jobs.wait_for("SELECT last_error IS NULL FROM jobs", "true")
        .await;
}

#[tokio::test]
async fn what_does_not_pass_fails_the_job_with_the_sentence() {
    let scene = Scene::new();
    let jobs = with_daemon(scene.program()).await;
    for (model, words) in [
        ("chaos/other", "there is no repository chaos/other"),
        ("chaos/one@v9", "has no revision v9"),
        (
            "../chaos/one",
            "not a path; put the folder or a link to it there",
        ),
        ("/etc", "not a path; put the folder or a link to it there"),
        (
            "chaos/one:../../config.onnx",
            "behind the colon write the path of a graph",
        ),
    ] {
        let job = insert(&jobs, model, "a").await;
        let reason = wait_for_failure(&jobs.client, job).await;
        assert!(reason.contains(words), "{model}: {reason}");
        jobs.sql("DELETE FROM jobs").await;
    }
}

#[tokio::test]
async fn a_job_is_canceled_in_the_middle_of_a_download() {
    let scene = Scene::new();
    scene.hub.fail("signature", Fault::StallAfter(1000));
    let patient = scene.program().with_env("HF_HUB_DOWNLOAD_TIMEOUT", "600");
    let jobs = with_daemon(patient).await;
    insert(&jobs, ID, "a").await;
    let hub = &scene.hub;
    wait_until("the download has stalled", TIMEOUT, async || {
        (hub.downloads_of_graphs() == 1 && hub.at_work() == 1)
            .then_some(())
            .ok_or("not yet")
    })
    .await;
    let begin = Instant::now();
    jobs.sql("UPDATE jobs SET canceled_at = true").await;
    wait_until("the download has ended", TIMEOUT, async || {
        (hub.at_work() == 0).then_some(()).ok_or("not yet")
    })
    .await;
    assert!(begin.elapsed() < Duration::from_secs(10));
    // Another job continues it.
    jobs.sql("DELETE FROM jobs").await;
    insert(&jobs, ID, "b").await;
    wait_for_vector(&jobs, "b", "w3").await;
    let requests = hub.requests();
    let last = requests.iter().rfind(|request| request.at_storage);
    let range = last.and_then(|request| request.range.as_deref());
    assert_eq!(range, Some("bytes=1000-"));
}
