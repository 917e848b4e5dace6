//! Answers that are wrong: an error, and never a vector.

use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::Act;

use crate::Client;

/// Answers that no server should give. Each is followed by a right one.
fn wrong_answers() -> Vec<Act> {
    let html = "<!doctype html><title>502 Bad Gateway</title>";
    vec![
        Act::HalfJson,
        Act::CutAfter(0),
        Act::CutAfter(40),
        Act::Close,
        Act::Endless,
        Act::TooFew,
        Act::TooMany,
        Act::SameIndex,
        Act::ShiftedIndex,
        Act::Numbers("NaN"),
        Act::Numbers("null"),
        Act::Numbers("Infinity"),
        Act::Numbers("-Infinity"),
        Act::Numbers("1e999"),
        Act::Numbers("0"),
        Act::Numbers("\"x\""),
        Act::Dimensions(0),
        Act::Status(200, Vec::new(), html.into()),
        Act::Status(200, Vec::new(), String::new()),
        Act::Status(200, Vec::new(), "null".into()),
        Act::Status(
            200,
            Vec::new(),
            r#"{"error": {"message": "overloaded"}}"#.into(),
        ),
        Act::Status(204, Vec::new(), String::new()),
        Act::Status(502, Vec::new(), html.into()),
    ]
}

#[tokio::test]
async fn after_a_wrong_answer_the_right_one_is_waited_for() {
    for act in wrong_answers() {
        let stub = StubEngine::start();
        let client = Client::new(&stub);
        stub.script([Act::Answer, act.clone()]);
        client.embed_all(&["first"]).await;
        client.embed_all(&["one", "two", "three"]).await;
        assert!(stub.requests() >= 3, "{act:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_always_wrong_gives_no_vector_and_says_why() {
    // The index of a lone text is right.
    let always_wrong = |act: &Act| !matches!(act, Act::SameIndex);
    for act in wrong_answers().into_iter().filter(always_wrong) {
        let stub = StubEngine::start();
        let client = Client::impatient(&[&stub], json!({}));
        stub.script(vec![act.clone(); 10_000]);
        let error = client.embed(&["one", "two", "three"]).await.unwrap_err();
        assert!(error.is_transient(), "{act:?}: {error}");
        assert!(
            error.to_string().starts_with("openai at 127.0.0.1:"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn vectors_may_come_in_any_order_if_they_say_whose_they_are() {
    let stub = StubEngine::start();
    stub.script([Act::Reversed]);
    Client::new(&stub).embed_all(&["one", "two", "three"]).await;
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn vectors_of_another_length_than_before_are_refused() {
    let stub = StubEngine::start();
    let client = Client::new(&stub);
    client.embed_all(&["one"]).await;
    stub.change(|behavior| behavior.dimensions = 5);
    let error = client.embed(&["two"]).await.unwrap_err();
    assert!(
        !error.is_transient() && !error.concerns_one_text(),
        "{error}"
    );
    assert!(
        error.to_string().contains("5 dimensions instead of 8"),
        "{error}"
    );
}

#[tokio::test]
async fn vectors_of_another_length_than_asked_for_are_refused() {
    let stub = StubEngine::start();
    let client = Client::with(&[&stub], json!({"dimensions": 16}));
    stub.script([Act::Dimensions(8)]);
    let error = client.probe().await;
    assert!(
        error.to_string().contains("8 dimensions instead of 16"),
        "{error}"
    );
}

impl Client {
    /// The error of a first text.
    async fn probe(&self) -> lantern::embedding::RemoteError {
        self.fleet.probe(&self.options).await.unwrap_err()
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let stub = StubEngine::start();
    let elsewhere = StubEngine::start();
    let location = format!("{}/v1/embeddings", elsewhere.url());
    stub.script([Act::Status(
        307,
        vec![("location", location)],
        String::new(),
    )]);
    let error = Client::new(&stub).probe().await;
    assert!(
        error
            .to_string()
            .contains("set base_url to where it redirects"),
        "{error}"
    );
    assert_eq!(elsewhere.requests(), 0);
}

#[tokio::test]
async fn a_model_that_was_replaced_is_used_by_those_who_start_and_refused_by_those_who_run() {
    let stub = StubEngine::start();
    let mut client = Client::new(&stub);
    assert_eq!(client.fleet.probe(&client.options).await.unwrap(), 8);
    let starting = client.options.clone();
    client.options = client.options.expecting(8);
    stub.change(|behavior| behavior.dimensions = 5);
    assert!(client.fleet.probe(&starting).await.is_err());
    assert_eq!(client.fleet.probe(&starting).await.unwrap(), 5);
    let error = client.embed(&["one"]).await.unwrap_err();
    assert!(
        error.to_string().contains("5 dimensions instead of 8"),
        "{error}"
    );
}
