//! What people copy into the folder of models: misspelt, in part, by other tools, for other programs.

use std::fs;
use std::path::Path;

use testkit::jobs::{Job, insert_job, wait_for_failure};
use testkit::scene::NOTES;
use testkit::tiny_model::{Export, TinyModel};
use testkit::{Program, Scene, data_path};

use crate::support::{program, scene_with};

/// The program with a data path of its own, after `change` to the folder of the tiny model.
fn with_models(change: impl FnOnce(&Path)) -> (tempfile::TempDir, Program) {
    let folder = data_path::with_tiny_models();
    change(&folder.path().join("models").join(TinyModel::One.name()));
    let program = program().with_data_path(folder.path());
    (folder, program)
}

/// Why the model cannot be used, as `embed` says it.
async fn refused(program: &Program, model: &str) -> String {
    let output = program.run(&["embed", "--model", model, "w1"]).await;
    assert_eq!(output.status.code(), Some(1), "{model} was accepted");
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test]
async fn a_job_with_a_misspelt_model_says_which_one_was_meant() {
    let mut scene = scene_with(NOTES).await;
    scene.spawn_daemon();
    for (model, words) in [
        (
            "sentence-transformers/all-MiniLM-L6",
            "model sentence-transformers/all-MiniLM-L6 is not on this machine",
        ),
        (
            "all-minilm-l6-v2",
            "did you mean sentence-transformers/all-MiniLM-L6-v2, which is on this machine?",
        ),
        (
            "microsoft/all-MiniLM-L12-v2",
            "model microsoft/all-MiniLM-L12-v2 (sentence-transformers/all-MiniLM-L12-v2)",
        ),
    ] {
        let job = Job {
            embedding_model: model,
            ..Job::on(&scene.database, "notes", "body", "embedding")
        };
        let job = insert_job(&scene.client, job).await;
        let reason = wait_for_failure(&scene.client, job).await;
        assert!(reason.contains(words), "{model}: {reason}");
        // What does not exist is not recommended for download.
        let is_known = model.starts_with("microsoft");
        assert_eq!(reason.contains("lantern-cli pull"), is_known, "{reason}");
    }
}

#[tokio::test]
async fn a_folder_that_lacks_files_is_named_with_them() {
    let (_folder, program) = with_models(|folder| {
        for file in ["config.json", "modules.json"] {
            fs::remove_file(folder.join(file)).expect("it is there");
        }
    });
    let said = refused(&program, TinyModel::One.name()).await;
    assert!(
        said.contains("the folder is there, but lacks config.json"),
        "{said}"
    );
    assert!(!said.contains("not on this machine"), "{said}");
    let said = refused(&program, "chaos/tow").await;
    assert!(
        said.contains("did you mean chaos/two, which is on this machine?"),
        "{said}"
    );
    for (file, words) in [
        (
            "1_Pooling/config.json",
            "it does not exist, and modules.json names its folder: download the model again",
        ),
        (
            "model.onnx",
            "it has no ONNX export (model.onnx or onnx/model.onnx); create one with",
        ),
    ] {
        let (_folder, program) = with_models(|folder| {
            fs::remove_file(folder.join(file)).expect("it is there");
        });
        let said = refused(&program, TinyModel::One.name()).await;
        assert!(said.contains(words), "{file}: {said}");
    }
}

#[tokio::test]
async fn stand_ins_for_files_are_recognized() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    for file in ["model.onnx", "tokenizer.json", "config.json"] {
        let (_folder, program) = with_models(|folder| {
            fs::write(folder.join(file), pointer).expect("it is written");
        });
        let said = refused(&program, TinyModel::One.name()).await;
        assert!(
            said.contains(file) && said.contains("git lfs pull"),
            "{said}"
        );
        let shown = program.stdout_of(&["show-models"]).await;
        assert!(shown.contains("git lfs pull"), "{shown}");
    }
    let (_folder, program) = with_models(|folder| {
        let graph = fs::read(folder.join("model.onnx")).expect("it is there");
        fs::write(folder.join("model.onnx"), &graph[..5000]).expect("it is written");
    });
    let said = refused(&program, TinyModel::One.name()).await;
    assert!(
        said.contains("ends in the middle of the graph, after 5000 bytes"),
        "{said}"
    );
}

#[test]
fn a_library_that_is_missing_or_none_is_named_with_what_to_install() {
    let (folder, program) = with_models(|_| ());
    let model = folder.path().join("models").join(TinyModel::One.name());
    for library in [folder.path().join("none.so"), model.join("config.json")] {
        let mut command = program.command("embed");
        command.args(["--model", TinyModel::One.name(), "w1"]);
        let output = command.env("ORT_DYLIB_PATH", &library).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(library.to_str().expect("text")), "{said}");
        assert!(said.contains("install onnxruntime 1.20 or newer"), "{said}");
    }
}

/// dsh-mneme 284: the vectors differ, and nothing said so.
#[tokio::test]
async fn what_is_assumed_of_a_model_is_said() {
    let (_folder, program) = with_models(|folder| {
        fs::remove_file(folder.join("modules.json")).expect("it is there");
        fs::remove_dir_all(folder.join("1_Pooling")).expect("it is there");
    });
    let output = program.run(&["embed", "--model", "chaos/one", "w1"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let words = "has no modules.json, so mean pooling without normalization is assumed";
    assert!(
        said.starts_with("warning: ") && said.contains(words),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    let shown = program.stdout_of(&["show-models"]).await;
    let line = shown
        .lines()
        .find(|line| line.starts_with("chaos/one"))
        .expect("a line");
    assert!(
        line.contains("mean (assumed)") && shown.contains(words),
        "{shown}"
    );
}

/// text-embeddings-inference 667: exports that take one text at a time.
#[tokio::test]
async fn a_model_for_one_text_at_a_time_is_named_once() {
    for export in [Export::OneTextInside, Export::OfSize(Some(1), None)] {
        let (folder, program) = with_models(|folder| {
            TinyModel::One
                .write_graph_to(folder, export)
                .expect("it is written");
        });
        let mut scene = tiny_scene(program, "real[]").await;
        scene
            .sql("INSERT INTO notes SELECT n, 'w' || n % 300 || repeat(' w7', n % 5) FROM generate_series(1, 400) n")
            .await;
        scene.start_daemon().await;
        scene
            .wait_for("SELECT count(*) FROM notes WHERE embedding IS NULL", "0")
            .await;
        let log = scene.daemon().log();
        let warnings = log
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"));
        let warnings: Vec<&str> = warnings.collect();
        assert!(
            warnings.len() == 1 && warnings[0].contains("no more than 1 text at a time"),
            "{log}"
        );
        drop(folder);
    }
}

/// A table with a job whose model is the tiny one.
async fn tiny_scene(program: Program, destination: &str) -> Scene {
    let database = testkit::TestDatabase::with_vector(testkit::server::shared()).await;
    let scene = Scene::without_vectors(program, database).await;
    scene
        .sql(&format!(
            "CREATE TABLE notes (id int PRIMARY KEY, body text, embedding {destination})"
        ))
        .await;
    let job = Job {
        embedding_model: TinyModel::One.name(),
        ..Job::on(&scene.database, "notes", "body", "embedding")
    };
    insert_job(&scene.client, job).await;
    scene
}

/// nnsight 608, mteb 1043: blanks have no token in tokenizers without special ones.
#[tokio::test]
async fn a_text_without_a_token_is_quarantined_and_gets_no_vector() {
    let (_folder, program) = with_models(|_| ());
    let mut scene = tiny_scene(program, "real[]").await;
    scene
        .sql("INSERT INTO notes VALUES (1, 'w1'), (2, '   '), (3, E'\\t\\n')")
        .await;
    scene.start_daemon().await;
    scene
        .sql("INSERT INTO notes VALUES (4, ' '), (5, 'w5')")
        .await;
    scene.wait_for_failed_rows("key->>'id'", "2, 3, 4").await;
    scene
        .wait_for(
            "SELECT string_agg(id::text, ' ' ORDER BY id) FROM notes WHERE embedding IS NOT NULL",
            "1 5",
        )
        .await;
    let reasons = "SELECT string_agg(DISTINCT error, ';') FROM jobs_failures";
    let reasons = scene.value(reasons).await;
    assert!(
        reasons.contains("the text has no token for the model chaos/one"),
        "{reasons}"
    );
    // A text with a token releases it.
    scene
        .sql("UPDATE notes SET body = 'w4' WHERE id = 4; UPDATE notes SET body = NULL WHERE id = 3")
        .await;
    scene.wait_for_failed_rows("key->>'id'", "2").await;
}

#[tokio::test]
async fn texts_beyond_the_window_are_counted_once_an_hour() {
    let (_folder, program) = with_models(|_| ());
    let mut scene = tiny_scene(program, "real[]").await;
    let insert = "INSERT INTO notes SELECT n, repeat('w7 ', 200) FROM generate_series(1, 50) n";
    scene.sql(insert).await;
    scene.start_daemon().await;
    scene
        .sql("INSERT INTO notes VALUES (60, repeat('w9 ', 300)), (61, 'w1')")
        .await;
    scene
        .wait_for("SELECT count(*) FROM notes WHERE embedding IS NULL", "0")
        .await;
    let log = scene.daemon().log();
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("longer than"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("job=1: ")
            && warnings[0]
                .contains("1 text of \"public\".\"notes\" so far is longer than the 96 tokens"),
        "{log}"
    );
}
