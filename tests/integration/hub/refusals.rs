//! What does not pass: each is a sentence with the remedy.

use std::fs;

use testkit::hub::Access;

use super::*;

/// What `pull` says about a model.
async fn refused(scene: &Scene, model: &str) -> String {
    refusal(&scene.program().run(&["pull", model]).await)
}

#[tokio::test]
async fn what_the_hub_does_not_have_is_named() {
    let scene = Scene::new();
    for (model, words) in [
        (
            "chaos/other",
            "there is no repository chaos/other, or it is private",
        ),
        (
            "chaos/one@v9",
            "no revision v9; name a branch, a tag or a commit",
        ),
        (
            "chaos/one:onnx/model_O4.onnx",
            "no file onnx/model_O4.onnx; it has model.onnx",
        ),
    ] {
        let said = refused(&scene, model).await;
        assert!(said.contains(words), "{model}: {said}");
        assert!(said.contains(&scene.hub.endpoint()), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = refused(&scene, "sentence-transformers/all-MiniLM-L6-v3").await;
    let words = "did you mean sentence-transformers/all-MiniLM-L6-v2, which is not on this machine";
    assert!(said.contains(words), "{said}");
    assert!(!scene.cache().join("snapshots").exists());
}

#[tokio::test]
async fn a_repository_without_an_export_says_how_to_make_one() {
    let scene = Scene::new();
    scene.publish(|folder| {
        fs::create_dir(folder.join("onnx")).expect("a folder");
        fs::rename(
            folder.join("model.onnx"),
            folder.join("onnx/model_int8.onnx"),
        )
        .expect("moved");
    });
    let said = refused(&scene, ID).await;
    for words in [
        "has no ONNX export (looked for model.onnx, onnx/model.onnx)",
        "it has onnx/model_int8.onnx: choose one with a colon",
        "optimum-cli export onnx --model chaos/one",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(scene.hub.downloads_of_graphs(), 0);
}

#[tokio::test]
async fn gated_and_private_models_need_a_token_which_the_storage_never_sees() {
    const TOKEN: &str = "hf_abcdefghijklmnop";
    let scene = Scene::new();
    scene.hub.restrict(ID, Access::Gated(TOKEN));
    let said = refused(&scene, ID).await;
    let page = format!(
        "accept them on {}/{ID}, and set HF_TOKEN",
        scene.hub.endpoint()
    );
    assert!(said.contains(&page), "{said}");
    scene.hub.restrict(ID, Access::Private(TOKEN));
    let said = refused(&scene, ID).await;
    assert!(
        said.contains("or it is private; check the name, or set HF_TOKEN"),
        "{said}"
    );

    let program = scene.program().with_env("HF_TOKEN", TOKEN);
    let output = program.run(&["pull", ID]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let requests = scene.hub.requests();
    let (at_storage, at_hub): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.at_storage);
    assert!(!at_storage.is_empty());
    assert!(
        at_storage
            .iter()
            .all(|request| request.authorization.is_none())
    );
    let expected = format!("Bearer {TOKEN}");
    let last = at_hub.last().expect("a request");
    assert_eq!(last.authorization.as_deref(), Some(expected.as_str()));

    // A wrong one is not printed, and neither is what a storage URL is signed with.
    let program = scene.program().with_env("HF_TOKEN", "hf_wrong");
    let said = refusal(&program.run(&["pull", "chaos/two"]).await);
    assert!(said.contains("no repository chaos/two"), "{said}");
    assert!(
        !said.contains("hf_wrong") && !said.contains("do-not-show"),
        "{said}"
    );
}

#[tokio::test]
async fn without_a_network_and_offline_it_says_so() {
    let scene = Scene::new();
    // No one listens there.
    let program = scene
        .program()
        .with_env("HF_ENDPOINT", "http://ann:secret@127.0.0.1:1");
    let said = refusal(&program.run(&["pull", ID]).await);
    for words in [
        "from http://127.0.0.1:1: no answer",
        "refused",
        "HTTPS_PROXY",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("secret"), "{said}");

    let before = scene.hub.requests().len();
    for program in [
        scene.program().with_env("LANTERN_OFFLINE", "1"),
        scene.program().with_env("HF_HUB_OFFLINE", "1"),
    ] {
        let said = refusal(&program.run(&["pull", ID]).await);
        assert!(said.contains("is not downloaded: --offline"), "{said}");
        let said = refusal(&program.run(&["embed", "--model", ID, "w1"]).await);
        assert!(said.contains("is not on this machine"), "{said}");
    }
    let output = scene
        .program()
        .run(&["embed", "--offline", "--model", ID, "w1"])
        .await;
    assert!(refusal(&output).contains("`lantern-cli pull chaos/one`"));
    assert_eq!(scene.hub.requests().len(), before);
}

#[tokio::test]
async fn models_that_cannot_be_run_are_refused_before_they_are_downloaded() {
    let scene = Scene::new();
    let said = refused(&scene, "naver/splade-v3").await;
    assert!(said.contains("its vectors are sparse"), "{said}");
    assert!(scene.hub.requests().is_empty());
}
