//! `/embed`, `/info` and `/health`, as clients of text-embeddings-inference use them.

use serde_json::{Value, json};
use testkit::scene::{MOON, TIDES};

use super::serve::{Serve, is_near};
use crate::http::requests::{Answer, get};
use crate::support::program;

fn vectors(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("arrays of numbers")
}

#[tokio::test]
async fn embed_answers_with_bare_arrays() {
    let serve = Serve::start(&program(), &[]).await;
    let expected = serve.vectors(&json!({"input": [TIDES, MOON]}));
    let embed = |body: Value| serve.post("/embed", body.to_string());
    let both = vectors(&embed(
        json!({"inputs": [TIDES, MOON], "normalize": true, "truncate": true}),
    ));
    assert!(both.iter().zip(&expected).all(|(a, b)| is_near(a, b)));
    for extra in [
        json!({}),
        json!({"prompt_name": "query"}),
        json!({"prompt_name": null, "truncation_direction": "Right", "parameters": {}}),
        json!({"model": "all-MiniLM-L6-v2", "dimensions": 384, "truncate": false}),
    ] {
        let mut body = json!({"inputs": TIDES});
        body.as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        assert!(is_near(&vectors(&embed(body))[0], &expected[0]), "{extra}");
    }
    let long = TIDES.repeat(100);
    let cut = embed(json!({"inputs": long}));
    assert_eq!(
        (vectors(&cut).len(), cut.header("x-truncated-texts")),
        (1, "1")
    );

    for (body, status, words) in [
        (
            json!({"inputs": long, "truncate": false}),
            413,
            "longer than the 256 tokens",
        ),
        (json!({"inputs": []}), 400, "the array is empty"),
        (json!({"inputs": ["a", ""]}), 400, "text 1 is empty"),
        (json!({"inputs": [[1, 2]]}), 400, "send texts"),
        (json!({"input": "a"}), 400, "missing field `inputs`"),
        (
            json!({"inputs": "a", "prompt_name": "clustering"}),
            400,
            "there are query and document",
        ),
        (
            json!({"inputs": "a", "normalize": false}),
            400,
            "have length 1",
        ),
        (
            json!({"inputs": "a", "truncation_direction": "Left"}),
            400,
            "truncation_direction",
        ),
        (
            json!({"inputs": "a", "model": "no/such"}),
            404,
            "does not exist here",
        ),
    ] {
        let answer = embed(body.clone());
        let error: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(
            (answer.status, &error["error_type"]),
            (status, &json!("Validation")),
            "{body:.80}"
        );
        assert!(
            error["error"].as_str().expect("a text").contains(words),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_model_that_does_not_normalize_does_so_where_it_is_asked() {
    let params = r#"{"normalize": false}"#;
    let serve = Serve::start(&program(), &["--runtime-params", params]).await;
    let length = |body: Value| {
        let vector = vectors(&serve.post("/embed", body.to_string())).remove(0);
        vector.iter().map(|value| value * value).sum::<f32>().sqrt()
    };
    assert!((length(json!({"inputs": TIDES, "normalize": true})) - 1.0).abs() < 1e-4);
    for body in [
        json!({"inputs": TIDES}),
        json!({"inputs": TIDES, "normalize": false}),
    ] {
        assert!((length(body) - 1.0).abs() > 0.1);
    }
}

#[tokio::test]
async fn clients_ask_what_the_model_is_and_whether_it_is_well() {
    let serve = Serve::start(&program(), &[]).await;
    let info: Value = serde_json::from_str(&get(serve.address, "/info", &[]).body).expect("JSON");
    assert_eq!(info["model_id"], testkit::engine::MODEL);
    assert_eq!(
        info["model_type"],
        json!({"embedding": {"pooling": "mean"}})
    );
    assert_eq!(
        (&info["max_input_length"], &info["auto_truncate"]),
        (&json!(256), &json!(true))
    );
    assert_eq!(get(serve.address, "/health", &[]).status, 200);
    assert_eq!(get(serve.address, "/readyz", &[]).body, "ready\n");
}
