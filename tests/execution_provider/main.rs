//! Execution providers other than the CPU's: one that is not there, one that computes wrong vectors, and what is shown of
//! one that is right. A binary of its own: the provider with faults exists only with the feature `failpoints`.

mod device_scene;
mod devices;
mod pooling;
mod recovery;

use std::path::Path;
use std::process::Output;

use lantern::embedding::yielding::Yielding;
use lantern::embedding::{
    EmbeddingError, Engine, EngineOptions, ModelCatalog, ModelName, TextRole,
};
use testkit::paths::runtime;
use testkit::tiny_model::TinyModel;
use testkit::wait::TIMEOUT;
use testkit::{Program, Scene, TestDatabase, data_path, server};

const TABLES: &str = "ALTER TABLE jobs ADD stats jsonb, ADD last_error text; CREATE TABLE notes (id int PRIMARY KEY, body text)";

fn engine(providers: &[&str]) -> Engine {
    engine_with(&runtime().join("models"), providers)
}

/// With these models.
fn engine_with(models: &Path, providers: &[&str]) -> Engine {
    let options = EngineOptions {
        data_path: runtime(),
        // Others use this machine, too, and the model would rest for them.
        yielding: Yielding::Off,
        providers: providers.iter().map(|name| name.parse().unwrap()).collect(),
        // A known vector would be compared with itself.
        cache_bytes: Some(0),
        ..EngineOptions::default()
    };
    Engine::new(ModelCatalog::new(models.into()), options)
}

async fn refusal(provider: &str) -> EmbeddingError {
    let name: ModelName = ModelName::DEFAULT.parse().unwrap();
    match engine(&[provider]).model(&name).await {
        Ok(model) => panic!("{} was loaded on {provider}", model.name()),
        Err(error) => error,
    }
}

fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_lantern-cli"))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_model_is_refused_whose_vectors_are_wrong() {
    let error = refusal("faulty:values").await;
    let EmbeddingError::ProviderDiffers { cosine, .. } = &error else {
        panic!("{error}");
    };
    assert!(*cosine < 0.9, "{cosine}");
    let sentence = error.to_string();
    let cosine = format!("the cosine of the two is {cosine:.4}");
    let parts = [
        "the execution provider faulty:values computes other vectors",
        "sentence-transformers/all-MiniLM-L6-v2",
        &cosine,
        "use --execution-provider cpu, or an export of the model in another precision",
    ];
    for part in parts {
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_model_is_refused_whose_vectors_are_wrong_only_beside_longer_texts() {
    let error = refusal("faulty:padding").await;
    let EmbeddingError::ProviderDiffers { cosine, text, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(text, "texts of different lengths together");
    assert!(cosine < 0.999, "{cosine}");
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_refused_before_any_model_is_loaded() {
    let error = engine(&["faulty:absent"])
        .check_provider()
        .await
        .unwrap_err();
    let sentence = error.to_string();
    let is_right = sentence.starts_with(
        "the execution provider faulty:absent cannot be used: the ONNX Runtime library",
    ) && sentence.contains("was built without it, and has cpu")
        && sentence.contains("ORT_DYLIB_PATH")
        && sentence.ends_with("or use --execution-provider cpu");
    assert!(is_right, "{sentence}");
}

#[tokio::test]
async fn what_this_library_lacks_is_refused_with_the_package_that_has_it() {
    // What `make setup` fetches is built for the CPU alone.
    let error = engine(&["cuda:0"]).check_provider().await.unwrap_err();
    let sentence = error.to_string();
    assert!(
        sentence.contains("was built without it") && sentence.contains("onnxruntime-gpu"),
        "{sentence}"
    );
}

#[tokio::test]
async fn the_next_provider_is_tried_and_the_log_says_why() {
    let order = "faulty:absent,faulty:padding,cpu";
    let arguments = ["embed", "--execution-provider", order, "a text"];
    let program = program();
    let output = program.run(&arguments).await;
    let alone = program.run(&["embed", "a text"]).await;
    let errors = errors(&output);
    assert!(output.status.success(), "{errors}");
    assert_eq!(output.stdout, alone.stdout);
    for part in [
        "faulty:absent cannot be used: the ONNX Runtime library",
        "faulty:padding computes other vectors",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(errors.matches("is passed over").count(), 2, "{errors}");
}

#[tokio::test]
async fn runs_of_many_threads_take_turns_and_their_vectors_are_right() {
    let name: ModelName = ModelName::DEFAULT.parse().unwrap();
    let (right, tested) = (engine(&[]), engine(&["faulty"]));
    let texts: Vec<String> = (1..200).map(|n| "word ".repeat(n % 60 + 1)).collect();
    let mut vectors = Vec::new();
    for engine in [&right, &tested] {
        let model = engine.model(&name).await.unwrap();
        let embedded = engine
            .embed(&model, TextRole::Document, texts.clone())
            .await;
        vectors.push(embedded.unwrap());
        assert_eq!(model.provider(), Some(engine.provider()));
    }
    assert_eq!(tested.provider().to_string(), "faulty");
    for (right, found) in vectors[0].iter().zip(&vectors[1]) {
        let product: f32 = right.iter().zip(found).map(|(a, b)| a * b).sum();
        assert!((product - 1.0).abs() < 1e-5, "{product}");
    }
    right.shutdown();
    tested.shutdown();
}

#[tokio::test]
async fn a_daemon_ends_at_its_start_where_the_provider_is_not_there() {
    let arguments = [
        "--uri",
        "postgresql://127.0.0.1:1/none",
        "--execution-provider",
        "cuda",
    ];
    let mut daemon = program().start_daemon(&arguments);
    let (status, _) = daemon.wait(TIMEOUT).await;
    assert!(!status.success());
    let log = daemon.log();
    assert!(
        log.contains("the execution provider cuda cannot be used"),
        "{log}"
    );
}

#[tokio::test]
async fn status_metrics_and_log_name_the_provider_that_computes() {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let database = TestDatabase::with_vector(server::shared()).await;
    let mut scene = Scene::without_vectors(program.clone(), database).await;
    scene.sql(TABLES).await;
    scene.put(1, "w1 w2 w3").await;
    let job = testkit::jobs::Job {
        embedding_model: TinyModel::One.name(),
        ..testkit::jobs::Job::on(&scene.database, "notes", "body", "embedding")
    };
    testkit::jobs::insert_job(&scene.client, job).await;
    scene.spawn_daemon_with(&["--execution-provider", "faulty:absent,faulty"]);
    scene.wait_for_backfill().await;
    scene
        .wait_for("SELECT stats ->> 'provider' FROM jobs", "faulty")
        .await;

    let status = program
        .stdout_of(&["status", "--uri", &scene.database.uri(), "--json"])
        .await;
    assert!(status.contains(r#""provider": "faulty""#), "{status}");
    let log = scene.daemon().log();
    let loaded = log
        .lines()
        .find(|line| line.contains("model loaded"))
        .unwrap();
    assert!(loaded.contains("provider=faulty"), "{loaded}");
}

#[tokio::test]
async fn show_models_names_the_provider_that_would_compute() {
    let shown = async |provider: &str| {
        program()
            .stdout_of(&["show-models", "--execution-provider", provider])
            .await
    };
    let text = shown("faulty:absent,faulty").await;
    assert!(
        text.contains("Models run on the execution provider faulty."),
        "{text}"
    );
    let text = shown("cpu").await;
    assert!(
        text.contains("Models run on the execution provider cpu."),
        "{text}"
    );
    let text = shown("faulty:absent").await;
    assert!(
        text.contains("the execution provider faulty:absent cannot be used: "),
        "{text}"
    );
}
