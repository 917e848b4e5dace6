//! What goes wrong on the way, and passes.

use std::fs;
use std::time::{Duration, Instant};

use testkit::hub::Fault;
use testkit::wait::{TIMEOUT, wait_until};

use super::*;

/// The ranges that were asked for at the storage.
fn ranges(hub: &Hub) -> Vec<Option<String>> {
    let requests = hub.requests().into_iter();
    let at_storage = requests.filter(|request| request.at_storage);
    at_storage.map(|request| request.range).collect()
}

const STORAGE: &str = "signature";

#[tokio::test]
async fn a_cut_and_a_stalled_download_are_continued_where_they_stopped() {
    let scene = Scene::new();
    scene.hub.fail(STORAGE, Fault::CutAfter(4000));
    scene.hub.fail(STORAGE, Fault::StallAfter(1000));
    scene.pull(ID).await;
    let expected = [None, Some("bytes=4000-"), Some("bytes=5000-")];
    assert_eq!(
        ranges(&scene.hub),
        expected.map(|range| range.map(str::to_owned))
    );
    assert_right(&embed(&scene.program(), ID, "w1").await, "w1");
}

#[tokio::test]
async fn a_storage_that_knows_no_ranges_sends_the_file_again() {
    let scene = Scene::new();
    scene.hub.fail(STORAGE, Fault::CutAfter(4000));
    scene.hub.fail(STORAGE, Fault::NoRange);
    scene.pull(ID).await;
    assert_right(&embed(&scene.program(), ID, "w1").await, "w1");
}

#[tokio::test]
async fn a_download_that_was_killed_is_no_model_and_is_continued() {
    let scene = Scene::new();
    scene
        .hub
        .fail(STORAGE, Fault::Slow(Duration::from_millis(200)));
    let mut command = scene.program().command("pull");
    command.arg(ID);
    let mut pull = testkit::Process::spawn(command);
    // The graph's, whose checksum has 64 digits. Small files come first.
    let length = "blobs/".len() + 64 + ".incomplete".len();
    let incomplete = || {
        let files = files_below(&scene.cache()).into_iter();
        let mut begun = files.filter(|file| file.ends_with(".incomplete"));
        begun.find(|file| file.len() == length)
    };
    let size = wait_until("the graph has begun", TIMEOUT, async || {
        let path = scene.cache().join(incomplete().ok_or("no file")?);
        let size = path.metadata().map_err(|_| "no file")?.len();
        (size > 0).then_some(size).ok_or("it is empty")
    })
    .await;
    pull.kill();
    assert!(!scene.cache().join("snapshots").exists());
    assert!(!scene.cache().join("refs").exists());
    let offline = scene.program().with_env("LANTERN_OFFLINE", "1");
    let output = offline.run(&["embed", "--model", ID, "w1"]).await;
    let said = refusal(&output);
    assert!(said.contains("is not on this machine"), "{said}");

    scene.pull(ID).await;
    let last = ranges(&scene.hub).pop().flatten().expect("a range");
    let from: u64 = last
        .trim_start_matches("bytes=")
        .trim_end_matches('-')
        .parse()
        .expect("a number");
    assert!(from >= size, "{from}");
    assert_eq!(incomplete(), None);
    assert_right(&embed(&scene.program(), ID, "w1").await, "w1");
}

#[tokio::test]
async fn damaged_files_are_never_used() {
    let scene = Scene::new();
    // Once is repaired, of a large file and of a small one.
    scene.hub.fail(STORAGE, Fault::Damaged);
    scene.hub.fail("/tokenizer.json", Fault::Damaged);
    scene.pull(ID).await;
    assert_right(&embed(&scene.program(), ID, "w1").await, "w1");

    let scene = Scene::new();
    for _ in 0..2 {
        scene.hub.fail(STORAGE, Fault::Damaged);
    }
    let output = scene.program().run(&["pull", ID]).await;
    let said = refusal(&output);
    assert!(said.contains("model.onnx arrived damaged, twice"), "{said}");
    assert!(!scene.cache().join("snapshots").exists());
    let left = files_below(&scene.cache().join("blobs"));
    assert!(
        left.iter().all(|file| !file.ends_with(".incomplete")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_hub_that_asks_to_wait_or_has_failures_is_asked_again() {
    let scene = Scene::new();
    scene
        .hub
        .fail("/api/models", Fault::Status(429, "Retry-After", "1"));
    scene
        .hub
        .fail("/api/models", Fault::Status(503, "X-No", "no"));
    scene
        .hub
        .fail("/config.json", Fault::Status(500, "X-No", "no"));
    let begin = Instant::now();
    let output = scene.program().run(&["pull", ID]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    for words in [
        "(429)",
        "status 503",
        "status 500",
        "next attempt in 1000 ms",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test]
async fn two_at_once_download_a_model_once() {
    let scene = Scene::new();
    scene
        .hub
        .fail(STORAGE, Fault::Slow(Duration::from_millis(60)));
    let (first, second) = tokio::join!(scene.pull(ID), scene.pull(ID));
    assert_eq!(first, second);
    assert_eq!(scene.hub.downloads_of_graphs(), 1);
    let tokenizers = scene.hub.requests().into_iter();
    let tokenizers = tokenizers.filter(|request| request.path.ends_with("/tokenizer.json"));
    assert_eq!(tokenizers.count(), 1);
}

#[tokio::test]
async fn a_mirror_that_lists_only_names_is_asked_for_each_file() {
    let scene = Scene::new();
    scene.hub.list_names_only();
    scene.pull(ID).await;
    let requests = scene.hub.requests();
    assert!(requests.iter().any(|request| request.method == "HEAD"));
    assert_right(&embed(&scene.program(), ID, "w1").await, "w1");
}

#[tokio::test]
async fn what_is_written_can_be_read_by_others_tools() {
    let scene = Scene::new();
    scene.pull(ID).await;
    let graph = scene.snapshot(&scene.commit).join("model.onnx");
    let target = fs::read_link(&graph).expect("a link");
    assert!(target.starts_with("../../blobs"), "{}", target.display());
    assert_eq!(
        fs::read(&graph).expect("it is there"),
        fs::read(scene.published().join("model.onnx")).expect("it is there")
    );
}
