//! Models come from the model folder, whatever they are called.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::jobs::{Job, MODEL, insert_job};
use crate::support::observe::{articles, execute, failure, finished};
use crate::support::{Daemon, runtime, server};

#[tokio::test]
async fn a_model_name_that_leads_out_of_the_model_folder_is_refused() {
    let (database, client) = articles(server()).await;
    execute(&client, "INSERT INTO articles (title) VALUES ('a title')").await;
    // A data path of the test's own, with links in its model folder.
    let data = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(runtime()).expect("it is there").flatten() {
        if entry.file_name() != "models" {
            symlink(entry.path(), data.path().join(entry.file_name())).expect("linked");
        }
    }
    let models = data.path().join("models");
    fs::create_dir(&models).expect("created");
    let inside = models
        .join("sentence-transformers")
        .join("all-MiniLM-L6-v2");
    fs::create_dir_all(inside.join("1_Pooling")).expect("created");
    let original = runtime().join("models").join(MODEL);
    for folder in [".", "1_Pooling", "onnx"] {
        let Ok(files) = fs::read_dir(original.join(folder)) else {
            continue;
        };
        fs::create_dir_all(inside.join(folder)).expect("created");
        for file in files.flatten().filter(|file| file.path().is_file()) {
            let copy = inside.join(folder).join(file.file_name());
            fs::hard_link(file.path(), &copy)
                .or_else(|_| fs::copy(file.path(), &copy).map(|_| ()))
                .expect("copied");
        }
    }
    symlink(&original, models.join("escape")).expect("linked");
    symlink(
        runtime().join("models").join("sentence-transformers"),
        models.join("elsewhere"),
    )
    .expect("linked");
    symlink(&inside, models.join("synonym")).expect("linked");

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
        refused.push((insert_job(&client, job(model)).await, "is not a model name"));
    }
    for model in ["escape", "elsewhere/all-MiniLM-L6-v2"] {
        refused.push((
            insert_job(&client, job(model)).await,
            "leads out of the model folder",
        ));
    }
    let good = [
        insert_job(&client, job("synonym")).await,
        insert_job(&client, Job::on(&database, "articles", "title", "other")).await,
    ];
    let path = data.path().display().to_string();
    let _daemon = Daemon::start_with(&["--uri", &database.uri(), "--data-path", &path]);
    for (job, said) in refused {
        let reason = failure(&client, job).await;
        assert!(reason.contains(said), "{reason}");
    }
    for job in good {
        finished(&client, job).await;
    }
}
