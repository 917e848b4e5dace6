//! Names, revisions and places: what `pull` fetches and where a model is found.

use std::fs;

use super::*;

#[tokio::test]
async fn pull_fetches_the_files_that_a_model_needs_and_no_more() {
    let scene = Scene::new();
    let commit = scene.publish(|folder| {
        for file in ["README.md", "pytorch_model.bin", "onnx/model_int8.onnx"] {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, "of no use here").expect("it is written");
        }
    });
    let printed = scene.pull(ID).await;
    let folder = scene.snapshot(&commit);
    for part in [&commit, folder.to_str().expect("text"), "0.0 MB"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let expected = [
        "1_Pooling/config.json",
        "config.json",
        "model.onnx",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    ];
    assert_eq!(files_below(&folder), expected);
    let pinned = fs::read_to_string(scene.cache().join("refs/main"));
    assert_eq!(pinned.expect("it is pinned"), commit);
    assert_right(&embed(&scene.program(), ID, "w1 w7").await, "w1 w7");

    // What is here is not fetched again, and is listed with its revision.
    let before = scene.hub.requests().len();
    embed(&scene.program(), ID, "w2").await;
    assert_eq!(scene.hub.requests().len(), before);
    let listed = scene.program().stdout_of(&["show-models", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let models = listed.as_array().expect("an array");
    let entry = models.iter().find(|entry| entry["name"] == ID);
    let entry = entry.expect("it is listed");
    assert_eq!(entry["revision"], commit.as_str());
    assert_eq!(entry["dimensions"], 8);
    assert_eq!(entry["path"], folder.to_str().expect("text"));
    let table = scene.program().stdout_of(&["show-models"]).await;
    let line = table.lines().find(|line| line.starts_with(ID));
    assert!(line.expect("a line").contains(&commit[..12]), "{table}");
}

#[tokio::test]
async fn a_revision_is_pinned_until_the_next_pull() {
    let scene = Scene::new();
    scene.pull(ID).await;
    let newest = scene.publish(|folder| {
        let config = r#"{"max_seq_length":5}"#;
        fs::write(folder.join("sentence_bert_config.json"), config).expect("it is written");
    });
    assert_ne!(newest, scene.commit);
    let pinned = || fs::read_to_string(scene.cache().join("refs/main")).expect("it is pinned");
    assert_right(&embed(&scene.program(), ID, "w1").await, "w1");
    assert_eq!(pinned(), scene.commit);
    scene.pull(ID).await;
    assert_eq!(pinned(), newest);
    // Only what has changed was fetched.
    assert_eq!(scene.hub.downloads_of_graphs(), 1);

    // A revision by its name or its commit is a model of its own.
    for revision in ["old", &scene.commit] {
        let printed = scene.pull(&format!("{ID}@{revision}")).await;
        assert!(printed.contains(&scene.commit), "{printed}");
    }
    assert_eq!(pinned(), newest);
    let offline = scene.program().with_env("LANTERN_OFFLINE", "1");
    assert_right(&embed(&offline, "chaos/one@old", "w3").await, "w3");
}

#[tokio::test]
async fn a_file_chooses_the_graph_and_its_weights_come_with_it() {
    let scene = Scene::new();
    scene.publish(|folder| {
        let onnx = folder.join("onnx");
        fs::create_dir(&onnx).expect("a folder");
        with_weights_in(&onnx, "elsewhere.bin");
        fs::rename(onnx.join("model.onnx"), onnx.join("variant.onnx")).expect("it is renamed");
    });
    let name = "chaos/one:onnx/variant.onnx";
    let printed = scene.pull(name).await;
    assert!(printed.contains("chaos/one:onnx/variant.onnx"), "{printed}");
    let files = files_below(&scene.cache().join("snapshots"));
    let has = |file: &str| files.iter().any(|path| path.ends_with(file));
    assert!(
        has("onnx/variant.onnx") && has("onnx/elsewhere.bin"),
        "{files:?}"
    );
    assert!(!has("/model.onnx"), "{files:?}");
    // The plain name needs the plain graph, which is still at the hub.
    assert_right(&embed(&scene.program(), ID, "w4").await, "w4");
}

#[tokio::test]
async fn models_of_other_tools_are_found_in_their_cache() {
    let scene = Scene::new();
    // As `huggingface_hub` writes it, with the files that PyTorch needs.
    let home = tempfile::tempdir().expect("a folder");
    let cache = home.path().join("hub/models--chaos--one");
    let snapshot = cache.join("snapshots").join(&scene.commit);
    fs::create_dir_all(snapshot.join("1_Pooling")).expect("a folder");
    fs::create_dir_all(cache.join("refs")).expect("a folder");
    fs::write(cache.join("refs/main"), &scene.commit).expect("it is written");
    let copy = |file: &str| {
        let copied = fs::copy(scene.published().join(file), snapshot.join(file));
        copied.expect("it is copied");
    };
    for file in ["config.json", "modules.json", "tokenizer.json"] {
        copy(file);
    }
    let home = home.path().to_str().expect("text");
    let program = scene.program().with_env("HF_HOME", home);
    // What is missing is fetched, of the same commit.
    let newest = scene.publish(|folder| {
        fs::write(folder.join("tokenizer_config.json"), "{}").expect("it is written");
    });
    assert_right(&embed(&program, ID, "w5 w6").await, "w5 w6");
    assert!(snapshot.join("model.onnx").exists());
    assert!(!cache.join("snapshots").join(newest).exists());
    assert!(!scene.cache().exists());
    // Then it is whole, and no hub is needed.
    let offline = program.with_env("HF_HUB_OFFLINE", "1");
    assert_right(&embed(&offline, ID, "w7").await, "w7");
}

#[tokio::test]
async fn a_folder_is_a_model_on_the_command_line() {
    let scene = Scene::new();
    let folder = scene.published();
    let folder = folder.to_str().expect("text");
    let offline = program();
    assert_right(&embed(&offline, folder, "w8").await, "w8");
    let nowhere = format!("{folder}-nowhere");
    let output = offline.run(&["embed", "--model", &nowhere, "w8"]).await;
    let said = refusal(&output);
    assert!(said.contains("check the path"), "{said}");
    let output = scene.program().run(&["pull", folder]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("put the folder or a link to it there"),
        "{said}"
    );
}

#[tokio::test]
async fn a_copy_by_hand_comes_before_a_download() {
    let scene = Scene::new();
    let copy = scene.data.path().join("models").join(ID);
    MODEL
        .write_to(&scene.data.path().join("models"))
        .expect("it is written");
    let output = scene.program().run(&["pull", ID]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let words = format!("warning: {} comes first", copy.display());
    assert!(said.contains(&words), "{said}");
}

#[tokio::test]
async fn a_commit_that_was_pulled_does_not_stand_for_the_model() {
    let scene = Scene::new();
    let newest = scene.publish(|folder| {
        fs::write(folder.join("tokenizer_config.json"), "{}").expect("it is written");
    });
    scene.pull(&format!("{ID}@{}", scene.commit)).await;
    assert!(!scene.snapshot(&newest).exists());
    embed(&scene.program(), ID, "w1").await;
    assert!(scene.snapshot(&newest).exists());
}
