//! Limits of the provider: pauses that it asks for, and storms.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::Act;

use crate::Client;

#[tokio::test]
async fn a_pause_that_the_server_asks_for_is_kept_and_is_no_failure() {
    let stub = StubEngine::start();
    // Longer than an impatient client waits for anything else.
    stub.script([Act::throttle(Some(600))]);
    let client = Client::impatient(&[&stub], json!({}));
    let begun = Instant::now();
    client.embed_all(&["one"]).await;
    assert!(begun.elapsed() >= Duration::from_millis(600));
    assert_eq!(stub.requests(), 2);
}

#[tokio::test]
async fn no_batch_is_ready_while_nothing_is_left() {
    let stub = StubEngine::start();
    let client = Client::new(&stub);
    let headers = vec![
        ("x-ratelimit-remaining-requests", "0".to_owned()),
        ("x-ratelimit-reset-requests", "300ms".to_owned()),
    ];
    let body = r#"{"data": [{"index": 0, "embedding": [1, 2, 3, 4, 5, 6, 7, 8]}]}"#;
    stub.script([Act::Status(200, headers, body.into())]);
    client.fleet.ready().await;
    client.embed(&["one"]).await.unwrap();
    let begun = Instant::now();
    client.fleet.ready().await;
    assert!(
        begun.elapsed() >= Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
    client.embed_all(&["two"]).await;
}

#[tokio::test]
async fn a_storm_of_refusals_does_not_multiply_requests() {
    const CALLS: usize = 100;
    let stub = StubEngine::start();
    stub.change(|behavior| {
        behavior.throttle_above = 4;
        behavior.latency = Duration::from_millis(2);
    });
    let client = Client::new(&stub);
    let texts = crate::texts(CALLS);
    let calls = texts
        .iter()
        .map(|text| async { client.embed_all(&[text.as_str()]).await });
    join_all(calls).await;
    assert!(
        stub.requests() < 4 * CALLS as u64,
        "{} requests",
        stub.requests()
    );
}
