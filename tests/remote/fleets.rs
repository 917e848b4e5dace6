//! Several servers: spread, left out when they are sick, and asked again.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::Act;

use crate::Client;

/// Embeds that many texts, one a call, all at the same time.
async fn embed_concurrently(client: &Client, count: usize) {
    let texts = crate::texts(count);
    let calls = texts
        .iter()
        .map(|text| async { client.embed_all(&[text.as_str()]).await });
    join_all(calls).await;
}

#[tokio::test]
async fn all_servers_share_the_work() {
    let stubs = [
        StubEngine::start(),
        StubEngine::start(),
        StubEngine::start(),
    ];
    for stub in &stubs {
        stub.change(|behavior| {
            behavior.latency = Duration::from_millis(5);
            behavior.concurrency = 2;
        });
    }
    let client = Client::with(&stubs.each_ref(), json!({}));
    embed_concurrently(&client, 90).await;
    for stub in &stubs {
        assert!(stub.requests() >= 10, "{} requests", stub.requests());
    }
}

#[tokio::test]
async fn a_server_that_fails_is_left_out_and_nothing_is_lost() {
    let (sick, healthy) = (StubEngine::start(), StubEngine::start());
    sick.script(vec![Act::error(503, "down"); 100_000]);
    let client = Client::with(&[&sick, &healthy], json!({}));
    for _ in 0..50 {
        embed_concurrently(&client, 4).await;
    }
    assert_eq!(healthy.embedded(), 200);
    assert!(sick.requests() < 60, "{} requests", sick.requests());
    let state = &client.fleet.servers()[0];
    let (_, reason) = state.left_out.as_ref().unwrap();
    assert!(reason.contains("down"), "{state:?}");
}

#[tokio::test]
async fn a_server_that_is_well_again_gets_work_again() {
    let (sick, healthy) = (StubEngine::start(), StubEngine::start());
    sick.script(vec![Act::Close; 5]);
    let client = Client::with(&[&sick, &healthy], json!({}));
    while sick.embedded() == 0 {
        embed_concurrently(&client, 4).await;
    }
    assert_eq!(client.fleet.servers()[0].left_out, None);
}

#[tokio::test]
async fn a_server_without_the_model_is_passed_over() {
    let (other, right) = (StubEngine::start(), StubEngine::start());
    other.change(|behavior| behavior.model = Some("another".into()));
    let client = Client::with(&[&other, &right], json!({}));
    embed_concurrently(&client, 20).await;
    embed_concurrently(&client, 20).await;
    assert_eq!(right.embedded(), 40);
    assert_eq!(
        client.fleet.probe(&client.options).await.unwrap(),
        crate::DIMENSIONS
    );
}

#[tokio::test]
async fn a_hedged_request_takes_the_first_answer() {
    let (slow, fast) = (StubEngine::start(), StubEngine::start());
    slow.script(vec![Act::Hang; 100]);
    fast.script(vec![Act::Delay(Duration::from_millis(1)); 100]);
    let client = Client::with(&[&slow, &fast], json!({"hedge_after": 0.05, "timeout": 30}));
    embed_concurrently(&client, 10).await;
    assert_eq!(fast.embedded(), 10);
}

#[tokio::test]
async fn a_hedged_request_that_fails_waits_for_the_other_one() {
    let (slow, failing) = (StubEngine::start(), StubEngine::start());
    slow.script([Act::Delay(Duration::from_millis(200))]);
    failing.script(vec![Act::error(503, "down"); 100]);
    let client = Client::with(&[&slow, &failing], json!({"hedge_after": 0.05}));
    client.embed_all(&["one"]).await;
    client.embed_all(&["two"]).await;
    assert_eq!(slow.embedded(), 2);
}

#[tokio::test]
async fn a_server_with_another_model_gives_no_vector() {
    let (other, right) = (StubEngine::start(), StubEngine::start());
    let client = Client::with(&[&other, &right], json!({"dimensions": 8}));
    other.script(vec![Act::Dimensions(4); 1000]);
    embed_concurrently(&client, 40).await;
    assert_eq!(right.embedded(), 40);
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let (mut killed, healthy) = (StubEngine::start(), StubEngine::start());
    for stub in [&killed, &healthy] {
        stub.change(|behavior| behavior.latency = Duration::from_millis(5));
    }
    let client = Client::with(&[&killed, &healthy], json!({}));
    let work = async {
        for _ in 0..20 {
            embed_concurrently(&client, 16).await;
        }
    };
    let kill = async {
        while killed.embedded() < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        killed.stop();
        while client.fleet.servers()[0].left_out.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        killed.restart();
    };
    tokio::join!(work, kill);
    let before = killed.embedded();
    while killed.embedded() == before {
        embed_concurrently(&client, 16).await;
    }
}
