//! `/v1/embeddings` and `/v1/models`.

use serde_json::{Value, json};
use testkit::data_path;
use testkit::scene::{CAVES, MOON, TIDES};
use testkit::tiny_model::TinyModel;

use super::serve::{Serve, is_near, openai_error};
use crate::http::requests::get;
use crate::support::program;

const MODEL: &str = testkit::engine::MODEL;

/// The vectors that the command prints.
async fn embedded(arguments: &[&str]) -> Vec<Vec<f32>> {
    let all = [&["embed", "--json"], arguments].concat();
    let printed = program().stdout_of(&all).await;
    let lines = printed.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a vector"))
        .collect()
}

fn decoded(base64: &str) -> Vec<f32> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64);
    let bytes = bytes.expect("base64");
    let values = bytes.chunks_exact(4);
    values
        .map(|value| f32::from_le_bytes(value.try_into().expect("four bytes")))
        .collect()
}

#[tokio::test]
async fn texts_get_the_vectors_that_the_command_prints_in_every_form() {
    let serve = Serve::start(&program(), &[]).await;
    let expected = embedded(&[TIDES, MOON, CAVES]).await;
    let all = serve.vectors(&json!({"input": [TIDES, MOON, CAVES], "model": MODEL, "user": "me"}));
    assert!(all.iter().zip(&expected).all(|(a, b)| is_near(a, b)));
    // Under the names of the older daemon, and without a name where there is one model.
    for model in [json!("all-MiniLM-L6-v2"), Value::Null] {
        let one = serve.vectors(&json!({"input": MOON, "model": model}));
        assert!(one.len() == 1 && is_near(&one[0], &expected[1]), "{model}");
    }
    let body = json!({"input": [MOON, TIDES], "encoding_format": "base64", "dimensions": 384});
    let answer = serve.post("/v1/embeddings", body.to_string());
    assert_eq!(answer.header("content-type"), "application/json");
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    let second = decoded(answer["data"][1]["embedding"].as_str().expect("a text"));
    assert!(is_near(&second, &expected[0]));
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("list"), &json!(MODEL))
    );
}

#[tokio::test]
async fn usage_counts_the_tokens_that_the_model_has_read() {
    let serve = Serve::start(&program(), &[]).await;
    // Twice: the second answer is from the cache.
    for _ in 0..2 {
        let answer = serve.post("/v1/embeddings", r#"{"input": ["hello world", "hello"]}"#);
        let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
        // [CLS] hello world [SEP], [CLS] hello [SEP]
        assert_eq!(
            answer["usage"],
            json!({"prompt_tokens": 7, "total_tokens": 7})
        );
    }
    let long = json!({"input": ["hello ".repeat(300), "hello"]});
    let answer = serve.post("/v1/embeddings", long.to_string());
    assert_eq!(answer.header("x-truncated-texts"), "1");
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(answer["usage"]["prompt_tokens"], 256 + 3);
}

#[tokio::test]
async fn token_ids_are_those_of_the_models_own_tokenizer_or_refused() {
    let serve = Serve::start(&program(), &[]).await;
    // [CLS] the moon and the tides [SEP]
    let ids = [101, 1996, 4231, 1998, 1996, 22487, 102];
    let expected = serve.vectors(&json!({"input": "the moon and the tides"}));
    for input in [json!(ids), json!([ids])] {
        assert!(is_near(
            &serve.vectors(&json!({"input": input}))[0],
            &expected[0]
        ));
    }
    let long = [&[101], &[1996; 300][..], &[102]].concat();
    for (input, what) in [
        (
            json!([[1820, 18266]]),
            "what LangChain sends of a text: ids of cl100k",
        ),
        (
            json!([15339]),
            "one word of cl100k, a number that this model has, too",
        ),
        (json!([ids[..6]]), "no special token behind"),
        (json!(ids[1..6]), "no special tokens"),
        (json!([[101, 4_000_000, 102]]), "no token of the model"),
        (json!([[]]), "nothing"),
        (json!([long]), "more than the window"),
    ] {
        let answer = serve.post("/v1/embeddings", json!({"input": input}).to_string());
        let (status, kind, code, param, message) = openai_error(&answer);
        assert_eq!(
            (status, kind.as_str(), code.as_str(), param.as_str()),
            (400, "invalid_request_error", "foreign_tokens", "input"),
            "{what}: {message}"
        );
        assert!(
            message.contains("check_embedding_ctx_length=False"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn queries_and_documents_have_the_prompts_of_the_model() {
    let params = r#"{"prompt": {"query": "query: ", "document": "passage: "}}"#;
    let serve = Serve::start(&program(), &["--runtime-params", params]).await;
    let expected = |text: &'static str| async move { embedded(&[text]).await.remove(0) };
    let of = |input_type: Value| {
        let body = json!({"input": TIDES, "input_type": input_type});
        serve.vectors(&body).remove(0)
    };
    let query = expected("query: how do the tides work?").await;
    let asked = serve.vectors(&json!({"input": "how do the tides work?", "input_type": "query"}));
    assert!(is_near(&asked[0], &query));
    let document = of(json!("document"));
    assert!(is_near(&of(Value::Null), &document));
    assert!(is_near(&of(json!("passage")), &document));
    assert!(!is_near(&of(json!("query")), &document));
}

#[tokio::test]
async fn vectors_are_cut_only_where_the_model_allows_it() {
    let params = r#"{"dimensions": 256, "force": true}"#;
    let serve = Serve::start(&program(), &["--runtime-params", params]).await;
    let whole = serve.vectors(&json!({"input": TIDES})).remove(0);
    let cut = serve
        .vectors(&json!({"input": TIDES, "dimensions": 128}))
        .remove(0);
    assert_eq!((whole.len(), cut.len()), (256, 128));
    let length = cut.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
    assert!((cut[0] / cut[1] - whole[0] / whole[1]).abs() < 1e-3);
    for dimensions in [0, 257, 1_000_000] {
        let body = json!({"input": "a", "dimensions": dimensions}).to_string();
        let (status, _, _, param, message) = openai_error(&serve.post("/v1/embeddings", body));
        assert_eq!((status, param.as_str()), (400, "dimensions"), "{message}");
        assert!(message.contains("have 256 dimensions"), "{message}");
    }
    drop(serve);
    let serve = Serve::start(&program(), &[]).await;
    let answer = serve.post("/v1/embeddings", r#"{"input": "a", "dimensions": 128}"#);
    let (status, _, _, param, message) = openai_error(&answer);
    assert_eq!((status, param.as_str()), (400, "dimensions"));
    assert!(
        message.contains("not known to be trained for shorter vectors"),
        "{message}"
    );
}

#[tokio::test]
async fn models_are_listed_and_known_by_their_names() {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let serve = Serve::start(&program, &["--model", "chaos/two", "--model", "chaos/one"]).await;
    let list = get(serve.address, "/v1/models", &[]);
    let list: Value = serde_json::from_str(&list.body).expect("JSON");
    let ids: Vec<&str> = list["data"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|model| model["id"].as_str().expect("a text"))
        .collect();
    assert_eq!(
        (&list["object"], ids),
        (&json!("list"), vec!["chaos/two", "chaos/one"])
    );
    for path in ["/v1/models/chaos/one", "/v1/models/chaos%2Fone"] {
        let one: Value = serde_json::from_str(&get(serve.address, path, &[]).body).expect("JSON");
        assert_eq!(
            (&one["id"], &one["object"], &one["dimensions"]),
            (&json!("chaos/one"), &json!("model"), &json!(8)),
            "{one}"
        );
    }
    for model in TinyModel::ALL {
        let vector = serve.vectors(&json!({"input": "w1 w2", "model": model.name()}));
        assert!(
            is_near(&vector[0], &model.vector("w1 w2")),
            "{}",
            model.name()
        );
    }
    let unknown = [
        get(serve.address, "/v1/models/no/such", &[]),
        serve.post("/v1/embeddings", r#"{"input": "a", "model": "no/such"}"#),
        serve.post("/v1/embeddings", r#"{"input": "a", "model": "job:1"}"#),
        serve.post("/v1/embeddings", r#"{"input": "a", "model": ""}"#),
    ];
    for answer in unknown {
        let (status, kind, code, _, message) = openai_error(&answer);
        assert_eq!((status, kind.as_str()), (404, "invalid_request_error"));
        assert_eq!(code, "model_not_found");
        assert!(
            message.contains("there are chaos/two, chaos/one"),
            "{message}"
        );
    }
    let (status, _, _, param, message) =
        openai_error(&serve.post("/v1/embeddings", r#"{"input": "a"}"#));
    assert_eq!((status, param.as_str()), (400, "model"), "{message}");
    // Its tokenizer puts nothing around a text.
    let tokens = json!({"input": [1, 2], "model": "chaos/one"}).to_string();
    let (status, _, _, _, message) = openai_error(&serve.post("/v1/embeddings", tokens));
    assert_eq!(status, 400);
    assert!(message.contains("marks no text"), "{message}");
}
