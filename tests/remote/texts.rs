//! Texts that are refused: the others of their batch get vectors, and a wrong setting blames no text.

use serde_json::json;
use testkit::StubEngine;
use testkit::stub_engine::{Act, vector_of};

use crate::{Client, DIMENSIONS, as_strs, texts};

#[tokio::test]
async fn one_refused_text_of_many_is_found_and_the_others_get_vectors() {
    let stub = StubEngine::start();
    stub.change(|behavior| behavior.refuse = Some("evil".into()));
    let mut texts = texts(64);
    texts[37] = "evil".into();
    let client = Client::new(&stub);
    let results = client.embed(&as_strs(&texts)).await.unwrap();
    for (text, result) in texts.iter().zip(&results) {
        match result {
            Ok(vector) => assert_eq!(vector.vector, vector_of(text, DIMENSIONS)),
            Err(error) => {
                assert_eq!(text, "evil");
                assert!(error.concerns_one_text() && !error.is_transient());
                assert!(
                    error.to_string().contains("'$.input[0]' is invalid"),
                    "{error}"
                );
            }
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    assert!(stub.requests() <= 16, "{} requests", stub.requests());
}

#[tokio::test]
async fn a_text_that_breaks_the_server_or_has_no_vector_is_found_too() {
    for breaks in [true, false] {
        let stub = StubEngine::start();
        stub.change(|behavior| {
            let text = Some("evil".to_owned());
            if breaks {
                behavior.crash = text;
            } else {
                behavior.nan = text;
            }
        });
        let mut texts = texts(8);
        texts[5] = "evil".into();
        let results = Client::new(&stub).embed(&as_strs(&texts)).await.unwrap();
        let errors: Vec<_> = results.iter().map(Result::is_err).collect();
        assert_eq!(
            errors,
            [false, false, false, false, false, true, false, false]
        );
        let error = results[5].as_ref().unwrap_err();
        assert!(error.concerns_one_text(), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_no_fault_of_a_text() {
    let stub = StubEngine::start();
    // The plain text of the check has an "e" too: everything is refused.
    stub.change(|behavior| behavior.refuse = Some("e".into()));
    let client = Client::new(&stub);
    let error = client.embed(&as_strs(&texts(8))).await.unwrap_err();
    assert!(
        !error.is_transient() && !error.concerns_one_text() && !error.is_refusal(),
        "{error}"
    );
    assert!(
        error.to_string().contains("check embedding_model"),
        "{error}"
    );
    let error = client.fleet.probe(&client.options).await.unwrap_err();
    assert!(
        error.to_string().contains("check embedding_model"),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_model_is_a_wrong_setting() {
    let stub = StubEngine::start();
    stub.change(|behavior| behavior.model = Some("another".into()));
    let error = Client::new(&stub).embed(&["one", "two"]).await.unwrap_err();
    assert!(!error.is_transient() && !error.concerns_one_text());
    assert!(
        error.to_string().contains("model \"stub\" not found"),
        "{error}"
    );
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn a_text_that_is_too_long_is_cut_and_says_so() {
    for runtime in ["openai", "cohere", "voyage", "ollama"] {
        let stub = StubEngine::start();
        stub.change(|behavior| behavior.max_text_tokens = 100);
        let long = "word ".repeat(1000);
        let client = Client::of(runtime, &[&stub], json!({}));
        let results = client.embed(&["short", &long, "also short"]).await.unwrap();
        let cut: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().unwrap().is_truncated)
            .collect();
        assert_eq!(cut, [false, true, false], "{runtime}");
        let short = &results[2].as_ref().unwrap().vector;
        assert_eq!(*short, vector_of("also short", DIMENSIONS), "{runtime}");
        let tokens = results[1].as_ref().unwrap().tokens;
        assert!(
            (50..=100).contains(&tokens),
            "{runtime}: {tokens} tokens are left"
        );
    }
}

#[tokio::test]
async fn a_text_that_is_too_long_is_refused_if_the_row_wants_that() {
    let stub = StubEngine::start();
    stub.change(|behavior| behavior.max_text_tokens = 100);
    let client = Client::with(&[&stub], json!({"truncate": "fail"}));
    let long = "word ".repeat(1000);
    let results = client.embed(&["short", &long]).await.unwrap();
    assert!(results[0].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert!(error.concerns_one_text(), "{error}");
    assert!(
        error
            .to_string()
            .contains("maximum context length is 100 tokens"),
        "{error}"
    );
    assert!(
        error.to_string().contains("\"truncate\": \"cut\""),
        "{error}"
    );
}

#[tokio::test]
async fn the_size_of_a_batch_that_a_server_names_is_remembered() {
    let stub = StubEngine::start();
    stub.change(|behavior| behavior.max_inputs = 32);
    let client = Client::new(&stub);
    let texts = texts(100);
    client.embed_all(&as_strs(&texts)).await;
    assert_eq!(stub.requests(), 5);
    client.embed_all(&as_strs(&texts)).await;
    assert_eq!(stub.requests(), 9);
}

#[tokio::test]
async fn a_proxy_that_refuses_large_bodies_gets_small_ones_from_then_on() {
    let stub = StubEngine::start();
    let too_large = Act::Status(
        413,
        Vec::new(),
        "<title>413 Request Entity Too Large</title>".into(),
    );
    stub.script([too_large]);
    let client = Client::new(&stub);
    let texts = texts(64);
    client.embed_all(&as_strs(&texts)).await;
    assert_eq!(stub.requests(), 3);
    client.embed_all(&as_strs(&texts)).await;
    assert!(stub.seen()[3..].iter().all(|seen| seen.texts.len() <= 32));
}

#[tokio::test]
async fn several_bad_texts_of_every_kind_are_found_in_one_batch() {
    let stub = StubEngine::start();
    stub.change(|behavior| {
        behavior.refuse = Some("refused".into());
        behavior.crash = Some("crashing".into());
        behavior.nan = Some("infinite".into());
        behavior.max_text_tokens = 20;
    });
    let mut texts = texts(40);
    texts[0] = "refused".into();
    texts[13] = "crashing".into();
    texts[26] = "infinite".into();
    texts[39] = "long ".repeat(50);
    let results = Client::new(&stub).embed(&as_strs(&texts)).await.unwrap();
    let errors = results
        .iter()
        .enumerate()
        .filter(|(_, result)| result.is_err());
    let errors: Vec<_> = errors.map(|(place, _)| place).collect();
    assert_eq!(errors, [0, 13, 26]);
    assert!(results[39].as_ref().unwrap().is_truncated);
}

#[tokio::test]
async fn odd_texts_arrive_as_they_are() {
    let stub = StubEngine::start();
    let texts = [
        "\u{0}",
        "\"quoted\" \\ \n\r\t",
        "größer 中文 👩‍🔬",
        "\u{feff}",
        " ",
        "{}",
        "</script>",
    ];
    Client::new(&stub).embed_all(&texts).await;
    assert_eq!(stub.seen()[0].texts, texts);
}

#[tokio::test]
async fn no_text_needs_no_request() {
    let stub = StubEngine::start();
    assert!(Client::new(&stub).embed(&[]).await.unwrap().is_empty());
    assert_eq!(stub.requests(), 0);
}
