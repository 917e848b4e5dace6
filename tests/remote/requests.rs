//! What is sent to each provider.

use lantern::embedding::{RemoteOptions, TextRole};
use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::vector_of;

use crate::{Client, DIMENSIONS};

#[tokio::test]
async fn openai_is_asked_for_base64_with_the_key_and_the_headers_of_the_row() {
    let stub = StubEngine::start();
    let parameters = json!({
        "api_key": " sk-test-key\n", "headers": {"OpenAI-Project": "proj"}, "dimensions": 4, "model": "other"
    });
    let client = Client::with(&[&stub], parameters);
    let results = client.embed(&["one", "two"]).await.unwrap();
    assert_eq!(results[1].as_ref().unwrap().vector, vector_of("two", 4));
    let seen = &stub.seen()[0];
    assert_eq!(seen.path, "/v1/embeddings");
    let expected = json!({
        "model": "other", "input": ["one", "two"], "encoding_format": "base64", "dimensions": 4
    });
    assert_eq!(seen.body, expected);
    assert_eq!(seen.headers["authorization"], "Bearer sk-test-key");
    assert_eq!(seen.headers["openai-project"], "proj");
}

#[tokio::test]
async fn azure_gets_the_key_in_a_header_of_its_own() {
    let stub = StubEngine::start();
    let parameters = json!({"api_key": "secret-key", "api_key_header": "api-key"});
    Client::with(&[&stub], parameters).embed_all(&["one"]).await;
    let seen = &stub.seen()[0];
    assert_eq!(seen.headers["api-key"], "secret-key");
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn every_provider_gets_its_own_request_and_gives_vectors_and_tokens() {
    for (runtime, path, expected) in [
        (
            "cohere",
            "/v2/embed",
            json!({"model": "stub", "texts": ["a b c"], "embedding_types": ["float"], "truncate": "NONE",
                   "input_type": "search_document"}),
        ),
        (
            "voyage",
            "/v1/embeddings",
            json!({"model": "stub", "input": ["a b c"], "truncation": false, "encoding_format": "base64",
                   "input_type": "document"}),
        ),
        (
            "ollama",
            "/api/embed",
            json!({"model": "stub", "input": ["a b c"], "truncate": false}),
        ),
    ] {
        let stub = StubEngine::start();
        let client = Client::of(runtime, &[&stub], json!({}));
        let results = client.embed(&["a b c"]).await.unwrap();
        let vector = results[0].as_ref().unwrap();
        assert_eq!(vector.vector, vector_of("a b c", DIMENSIONS), "{runtime}");
        assert_eq!(vector.tokens, 3, "{runtime}");
        assert_eq!(stub.seen()[0].path, path);
        assert_eq!(stub.seen()[0].body, expected);
    }
}

#[tokio::test]
async fn prompt_and_input_type_are_those_of_the_role() {
    let stub = StubEngine::start();
    let parameters = json!({
        "prompt": {"query": "query: ", "document": "passage: "},
        "input_type": {"query": "query", "document": "document"},
    });
    let client = Client::with(&[&stub], parameters);
    for (role, text) in [
        (TextRole::Query, "query: x"),
        (TextRole::Document, "passage: x"),
    ] {
        let results = client
            .fleet
            .embed_each(&client.options, role, &["x".into()])
            .await
            .unwrap();
        assert_eq!(
            results[0].as_ref().unwrap().vector,
            vector_of(text, DIMENSIONS)
        );
    }
    let input_types: Vec<_> = stub
        .seen()
        .iter()
        .map(|seen| seen.body["input_type"].clone())
        .collect();
    assert_eq!(input_types, ["query", "document"]);
}

#[tokio::test]
async fn floats_are_as_good_as_base64() {
    let stub = StubEngine::start();
    for (runtime, format) in [
        ("openai", "float"),
        ("cohere", "base64"),
        ("voyage", "float"),
    ] {
        let client = Client::of(runtime, &[&stub], json!({"encoding_format": format}));
        client.embed_all(&["one", "two"]).await;
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let stub = StubEngine::start();
    let client = Client::new(&stub);
    for _ in 0..10 {
        client.embed_all(&["one"]).await;
    }
    assert_eq!((stub.requests(), stub.connections()), (10, 1));
}

#[tokio::test]
async fn no_output_of_the_options_has_the_key() {
    let parameters = r#"{"api_key": "sk-very-secret", "headers": {"X-Auth": "also-secret"}}"#;
    let options = RemoteOptions::new("openai", "m", Some(parameters)).unwrap();
    let shown = format!(
        "{options:?} {:?} {:?}",
        options.service_key(),
        options.identity()
    );
    assert!(!shown.contains("secret"), "{shown}");
}
