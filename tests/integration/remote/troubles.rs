//! Texts that a server refuses, settings that it does not know, and servers that do not answer.

use testkit::StubEngine;
use testkit::stub_engine::Behavior;

use super::{at, job, load, notes, wait_for_all_but};

#[tokio::test]
async fn a_refused_text_is_quarantined_with_the_servers_words_and_the_others_are_embedded() {
    let stub = StubEngine::start();
    stub.set(Behavior {
        refuse: Some("forbidden".into()),
        ..Behavior::default()
    });
    let mut scene = notes().await;
    load(&scene, 1, 300).await;
    scene
        .sql("UPDATE notes SET body = 'forbidden ' || id WHERE id IN (17, 200)")
        .await;
    job(&scene, "openai", "stub", &at(&[&stub])).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[17, 200]).await;
    scene.wait_for_failed_rows("key->>'id'", "17, 200").await;
    let words = "SELECT bool_and(error LIKE '%openai at 127.0.0.1%refused%') FROM jobs_failures";
    assert_eq!(scene.value(words).await, "true");
    scene.put(17, "allowed").await;
    scene.wait_for_failed_rows("key->>'id'", "200").await;
}

#[tokio::test]
async fn a_setting_that_no_server_accepts_fails_the_job_and_blames_no_row() {
    let stub = StubEngine::start();
    stub.set(Behavior {
        model: Some("stub".into()),
        ..Behavior::default()
    });
    let mut scene = notes().await;
    load(&scene, 1, 10).await;
    job(&scene, "openai", "stubb", &at(&[&stub])).await;
    scene.spawn_daemon();
    let reason = scene.wait_for_failure().await;
    assert!(
        reason.contains("stubb") && reason.contains("openai at 127.0.0.1"),
        "{reason}"
    );
    assert_eq!(scene.value("SELECT to_regclass('jobs_failures')").await, "");
}

#[tokio::test]
async fn params_that_are_wrong_are_refused_with_the_remedy() {
    for (runtime, params, words) in [
        (
            "openai",
            "\"base_ur\": \"http://127.0.0.1\"",
            "did you mean base_url",
        ),
        ("openai", "\"base_url\": \"ftp://127.0.0.1\"", "base_url"),
        ("openai", "\"pooling\": \"cls\"", "pooling"),
        ("openia", "", "openai"),
        (
            "openai",
            "\"base_url\": \"http://10.0.0.1\", \"api_key\": \"k\"",
            "https",
        ),
    ] {
        let mut scene = notes().await;
        job(&scene, runtime, "stub", params).await;
        scene.spawn_daemon();
        let reason = scene.wait_for_failure().await;
        assert!(reason.contains(words), "{params}: {reason}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_delays_rows_and_says_so() {
    let mut stub = StubEngine::start();
    let mut scene = notes().await;
    load(&scene, 1, 20).await;
    job(&scene, "openai", "stub", &at(&[&stub])).await;
    scene.start_daemon().await;
    wait_for_all_but(&scene, &[]).await;
    stub.stop();
    load(&scene, 21, 40).await;
    let told = "SELECT COALESCE(last_error, '') LIKE '%openai at 127.0.0.1%' FROM jobs";
    scene.wait_for(told, "true").await;
    stub.restart();
    wait_for_all_but(&scene, &[]).await;
    scene.wait_until_confirmed().await;
    scene
        .wait_for("SELECT last_error IS NULL FROM jobs", "true")
        .await;
    assert_eq!(scene.failures().await, "");
}
