//! Models come from the model folder, whatever they are called.

use crate::support::jobs::{Job, MODEL, insert_job};
use crate::support::observe::{articles, execute, failure, finished};
use crate::support::{Daemon, runtime, server};

#[tokio::test]
async fn a_model_name_that_leads_out_of_the_model_folder_is_refused() {
    let (database, client) = articles(server()).await;
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
    let _daemon = Daemon::start(&database, &[]);
    for job in refused {
        let reason = failure(&client, job).await;
        assert!(reason.contains("is not a model name"), "{reason}");
    }
    finished(&client, good).await;
}
