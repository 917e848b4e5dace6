//! The models of a daemon's jobs.

use serde_json::{Value, json};
use testkit::client::{execute, value};
use testkit::jobs::{Job, insert_job, wait_for_backfill};
use testkit::scene::{MOON, TIDES};
use testkit::wait::{TIMEOUT, wait_until};
use testkit::{TestDatabase, paths, server};

use super::serve::{is_near, openai_error, post, vectors};
use crate::http::daemon::{address_of, wait_for_state};
use crate::http::requests::get;
use crate::support::start_daemon;

const MODEL: &str = testkit::engine::MODEL;

#[tokio::test]
async fn a_job_s_model_is_used_under_the_options_of_the_job_while_it_runs() {
    let database = TestDatabase::create(server::shared()).await;
    let client = database.client().await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    execute(
        &client,
        "CREATE TABLE notes (id int PRIMARY KEY, body text, plain real[], prompted real[]); \
         INSERT INTO notes (id, body) VALUES (1, 'the moon and the tides')",
    )
    .await;
    let daemon = start_daemon(&database, &["--listen", "127.0.0.1:0"]);
    let address = address_of(&daemon).await;
    wait_for_state(address).await;
    let (status, kind, .., message) =
        openai_error(&post(address, "/v1/embeddings", r#"{"input": "a"}"#));
    assert_eq!((status, kind.as_str()), (503, "server_error"), "{message}");

    let plain = insert_job(&client, Job::on(&database, "notes", "body", "plain")).await;
    let options = [(
        "runtime_params",
        r#"'{"prompt": {"query": "query: ", "document": "passage: "}}'"#,
    )];
    let prompted = Job {
        options: &options,
        ..Job::on(&database, "notes", "body", "prompted")
    };
    let prompted = insert_job(&client, prompted).await;
    for job in [plain, prompted] {
        wait_for_backfill(&client, job).await;
    }
    let column = |name: &str| format!("SELECT {name} FROM notes");
    let of_plain: Vec<f32> = value(&client, &column("plain")).await;
    let of_prompted: Vec<f32> = value(&client, &column("prompted")).await;
    assert!(!is_near(&of_plain, &of_prompted));
    let body = |model: String| json!({"input": "the moon and the tides", "model": model});
    let ids = [
        MODEL.to_owned(),
        format!("job:{plain}"),
        format!("job:{prompted}"),
    ];
    for (id, expected) in ids.iter().zip([&of_plain, &of_plain, &of_prompted]) {
        assert!(
            is_near(&vectors(address, &body(id.clone()))[0], expected),
            "{id}"
        );
    }
    let list: Value = serde_json::from_str(&get(address, "/v1/models", &[]).body).expect("JSON");
    let listed = list["data"].as_array().expect("an array").iter();
    let listed: Vec<&str> = listed.filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(listed, ids.iter().map(String::as_str).collect::<Vec<_>>());

    // The name then stands for the job that is left.
    execute(
        &client,
        &format!("UPDATE jobs SET canceled_at = true WHERE id = {plain}"),
    )
    .await;
    let gone = json!({"input": "a", "model": format!("job:{plain}")}).to_string();
    wait_until("the job's model is gone", TIMEOUT, async || {
        let answer = post(address, "/v1/embeddings", &gone);
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    assert!(is_near(
        &vectors(address, &body(MODEL.into()))[0],
        &of_prompted
    ));
    assert_eq!(get(address, "/metrics", &[]).status, 200);
}

#[tokio::test]
async fn requests_are_answered_before_a_backfill() {
    let database = TestDatabase::create(server::shared()).await;
    let client = database.client().await;
    database.psql(&paths::read("sql/jobs.sql")).await;
    // Minutes of work.
    execute(
        &client,
        "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding real[]); \
         INSERT INTO notes (id, body) SELECT n, n || repeat(' photosynthesis', 200) FROM generate_series(1, 5000) n",
    )
    .await;
    let daemon = start_daemon(&database, &["--listen", "127.0.0.1:0"]);
    let address = address_of(&daemon).await;
    insert_job(&client, Job::on(&database, "notes", "body", "embedding")).await;
    let has_begun = "SELECT count(embedding) > 0 FROM notes";
    testkit::client::wait_for_value(&client, has_begun, true).await;
    for text in [TIDES, MOON] {
        assert_eq!(
            vectors(address, &json!({"input": text, "input_type": "query"}))[0].len(),
            384
        );
    }
    let left: i64 = value(
        &client,
        "SELECT count(*) FROM notes WHERE embedding IS NULL",
    )
    .await;
    assert!(left > 2000, "{left}");
}
