//! Models come from the model folder, whatever they are called.

use testkit::client::execute;
use testkit::engine::MODEL;
use testkit::jobs::{Job, articles, insert_job, wait_for_backfill, wait_for_failure};
use testkit::paths::runtime;
use testkit::server;

use crate::support::start_daemon;

#[tokio::test]
async fn a_model_name_that_leads_out_of_the_model_folder_is_rejected() {
    let (database, client) = articles(server::shared()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    let original = runtime().join("models").join(MODEL);
    let job = |model| Job {
        embedding_model: model,
        ..Job::on(&database, "articles", "title", "vector")
    };
    let (absolute, long) = (original.display().to_string(), "m".repeat(1000));
    let mut refused = Vec::new();
    for model in [
        "..",
        "../models/sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/../sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/..",
        ".hidden",
        "%2e%2e/models",
        "..%2fmodels",
        "a\\..\\b",
        "a/b/c",
        "a b",
        "a\nb",
        "\"; DROP TABLE jobs; --",
        "m'odel",
        "модель",
        &absolute,
        &long,
    ] {
        refused.push(insert_job(&client, job(model)).await);
    }
    let good = insert_job(&client, job(MODEL)).await;
    let _daemon = start_daemon(&database, &[]);
    for job in refused {
        let reason = wait_for_failure(&client, job).await;
        assert!(reason.contains("is not a model name"), "{reason}");
    }
    wait_for_backfill(&client, good).await;
}
