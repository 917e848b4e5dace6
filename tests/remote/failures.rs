//! Failures that pass, and refusals that a person has to see to.

use std::time::Duration;

use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::Act;

use crate::Client;

#[tokio::test]
async fn what_passes_is_tried_again() {
    for status in [408, 409, 425, 429, 500, 502, 503, 504, 529] {
        let stub = StubEngine::start();
        stub.script([Act::error(status, "later"), Act::error(status, "later")]);
        Client::new(&stub).embed_all(&["one", "two"]).await;
        assert_eq!(stub.requests(), 3, "{status}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_and_comes_back_is_waited_for() {
    let mut stub = StubEngine::start();
    let client = Client::new(&stub);
    client.embed_all(&["one"]).await;
    stub.stop();
    let texts = ["two", "three"];
    let (results, ()) = tokio::join!(client.embed(&texts), async {
        while client.fleet.servers()[0].failures < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stub.restart();
    });
    crate::assert_vectors(&texts, &results.unwrap());
}

#[tokio::test]
async fn a_server_that_stays_away_is_a_transient_error_that_says_where() {
    let mut stub = StubEngine::start();
    let client = Client::impatient(&[&stub], json!({}));
    stub.stop();
    let error = client.embed(&["one"]).await.unwrap_err();
    assert!(error.is_transient() && !error.is_refusal(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let probed = client.fleet.probe(&client.options).await.unwrap_err();
    assert!(probed.is_transient(), "{probed}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_asked_again() {
    let stub = StubEngine::start();
    stub.script([Act::Hang]);
    let client = Client::with(&[&stub], json!({"timeout": 0.2}));
    client.embed_all(&["one"]).await;
    assert_eq!(stub.requests(), 2);
}

#[tokio::test]
async fn a_refused_key_is_a_refusal_and_blames_no_text() {
    let stub = StubEngine::start();
    stub.change(|behavior| behavior.key = Some("right".into()));
    let client = Client::with(&[&stub], json!({"api_key": "sk-wrong-key"}));
    let error = client.embed(&["one", "two"]).await.unwrap_err();
    assert!(error.is_refusal() && !error.concerns_one_text(), "{error}");
    assert!(error.to_string().contains("Incorrect API key"), "{error}");
    // The key is renewed there: the same call succeeds.
    stub.change(|behavior| behavior.key = Some("sk-wrong-key".into()));
    client.embed_all(&["one", "two"]).await;
}

#[tokio::test]
async fn an_empty_account_is_a_refusal() {
    let quota = r#"{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}"#;
    for act in [
        Act::Status(429, Vec::new(), quota.into()),
        Act::error(402, "pay"),
    ] {
        let stub = StubEngine::start();
        stub.script([act]);
        let error = Client::new(&stub).embed(&["one"]).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert_eq!(stub.requests(), 1);
    }
}

#[tokio::test]
async fn a_key_that_a_server_repeats_is_not_shown() {
    let stub = StubEngine::start();
    stub.script([Act::error(
        401,
        "Incorrect API key provided: sk-very-secret.",
    )]);
    let client = Client::with(&[&stub], json!({"api_key": "sk-very-secret"}));
    let error = client.embed(&["one"]).await.unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("very-secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_in_flight() {
    let stub = StubEngine::start();
    stub.script([Act::Hang]);
    let client = Client::new(&stub);
    let call = client.embed(&["one"]);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), call)
            .await
            .is_err()
    );
    assert_eq!(client.fleet.servers()[0].in_flight, 0);
    client.embed_all(&["one"]).await;
}

#[tokio::test]
async fn a_pause_of_no_time_is_none_and_ends_in_an_error() {
    let stub = StubEngine::start();
    stub.script(vec![Act::throttle(Some(0)); 100_000]);
    let client = Client::impatient(&[&stub], json!({}));
    let error = client.embed(&["one"]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(stub.requests() < 100, "{} requests", stub.requests());
}

#[tokio::test]
async fn calls_that_fail_together_end_together() {
    let mut stub = StubEngine::start();
    let client = Client::impatient(&[&stub], json!({}));
    stub.stop();
    let calls = (0..50).map(|_| client.embed(&["one"]));
    let all = futures_util::future::join_all(calls);
    let results = tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap();
    assert!(
        results
            .into_iter()
            .all(|result| result.unwrap_err().is_transient())
    );
}
