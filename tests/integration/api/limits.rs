//! How much a request may ask, and how many are worked on at a time.

use std::net::TcpStream;

use serde_json::{Value, json};
use testkit::data_path;
use testkit::wait::{TIMEOUT, wait_until};

use super::serve::{Serve, begin, openai_error, request, rest};
use crate::http::requests::get;
use crate::support::program;

const HEAD: &str =
    "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

async fn tiny() -> (tempfile::TempDir, Serve) {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let serve = Serve::start(&program, &["--model", "chaos/one"]).await;
    (folder, serve)
}

/// Requests whose bodies of so many bytes never come.
fn unfinished(serve: &Serve, count: usize, bytes: usize) -> Vec<TcpStream> {
    let head = format!("{HEAD}Content-Length: {bytes}\r\n\r\n{{");
    let begin = |_| begin(serve.address, head.as_bytes());
    (0..count).map(begin).collect()
}

#[tokio::test]
async fn a_request_has_at_most_2048_texts() {
    let (_folder, serve) = tiny().await;
    let texts: Vec<String> = (0..2048)
        .map(|number| format!("w{} w{}", number % 40, number / 40))
        .collect();
    let vectors = serve.vectors(&json!({"input": texts}));
    assert_eq!(vectors.len(), 2048);
    let last = testkit::tiny_model::TinyModel::One.vector(&texts[2047]);
    assert!(super::serve::is_near(&vectors[2047], &last));
    for (path, field) in [("/v1/embeddings", "input"), ("/embed", "inputs")] {
        let body = json!({field: vec!["w1"; 2049]}).to_string();
        let answer = serve.post(path, body);
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(
            answer.body.contains("more than 2048 texts"),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn a_request_has_at_most_300000_tokens() {
    let serve = Serve::start(&program(), &[]).await;
    let texts = vec!["tide ".repeat(300); 1500];
    let answer = serve.post("/v1/embeddings", json!({"input": texts}).to_string());
    let (status, _, code, param, message) = openai_error(&answer);
    assert_eq!(
        (status, code.as_str(), param.as_str()),
        (400, "max_tokens_per_request", "input"),
        "{message}"
    );
    assert!(message.contains("have 384000 tokens"), "{message}");
}

#[tokio::test]
async fn a_body_has_at_most_8_mib() {
    let (_folder, serve) = tiny().await;
    // Said before it is sent.
    let declared = format!("{HEAD}Connection: close\r\nContent-Length: 8388609\r\n\r\n");
    let unreadable =
        format!("{HEAD}Connection: close\r\nContent-Length: 99999999999999999\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
    let chunked = format!(
        "{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(9)
    );
    for head in [declared, unreadable, chunked] {
        // The server may answer, and close, before it has read everything.
        let mut stream = TcpStream::connect(serve.address).expect("the server listens");
        let _ = std::io::Write::write_all(&mut stream, head.as_bytes());
        let answer = rest(stream);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
            "{answer:.200}"
        );
    }
    let body = json!({"input": "w1 ".repeat(2_790_000)}).to_string();
    let answer = serve.post("/v1/embeddings", &body[..]);
    assert_eq!(
        (body.len() < 8 << 20, answer.status),
        (true, 200),
        "{:.200}",
        answer.body
    );
}

#[tokio::test]
async fn too_many_requests_are_refused_with_a_time_to_come_back() {
    let (_folder, serve) = tiny().await;
    let held = unfinished(&serve, 128, 20);
    let refused = wait_until("all places are taken", TIMEOUT, async || {
        let answer = serve.post("/v1/embeddings", r#"{"input": "w1"}"#);
        if answer.status == 429 {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
    .await;
    assert_eq!(refused.header("retry-after"), "1");
    let (_, kind, code, _, message) = openai_error(&refused);
    assert_eq!(
        (kind.as_str(), code.as_str()),
        ("requests", "rate_limit_exceeded"),
        "{message}"
    );
    let refused = serve.post("/embed", r#"{"inputs": "w1"}"#);
    let error: Value = serde_json::from_str(&refused.body).expect("JSON");
    assert_eq!(
        (refused.status, &error["error_type"]),
        (429, &json!("Overloaded"))
    );
    // Monitoring and models are not counted.
    assert_eq!(get(serve.address, "/readyz", &[]).status, 200);
    assert_eq!(get(serve.address, "/v1/models", &[]).status, 200);
    drop(held);
    wait_until("the places are free", TIMEOUT, async || {
        let answer = serve.post("/v1/embeddings", r#"{"input": "w1"}"#);
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
}

#[tokio::test]
async fn a_few_large_requests_take_no_more_memory_than_many_small_ones() {
    let (_folder, serve) = tiny().await;
    let held = unfinished(&serve, 10, 8 << 20);
    let large = json!({"input": "w1 ".repeat(2_790_000)}).to_string();
    let refused = wait_until("the memory is taken", TIMEOUT, async || {
        let answer = serve.post("/v1/embeddings", &large[..]);
        if answer.status == 429 {
            Ok(answer)
        } else {
            Err(answer.status)
        }
    })
    .await;
    assert!(refused.body.contains("memory"), "{}", refused.body);
    // There is room for a small one.
    assert_eq!(serve.vectors(&json!({"input": "w1"})).len(), 1);
    drop(held);
}

#[tokio::test]
async fn connections_without_a_request_keep_no_one_out() {
    let (_folder, serve) = tiny().await;
    let connect = |_| TcpStream::connect(serve.address).expect("the queue has room");
    let idle: Vec<TcpStream> = (0..300).map(connect).collect();
    let half: Vec<TcpStream> = (0..300)
        .map(|_| begin(serve.address, b"POST /v1/em"))
        .collect();
    assert_eq!(get(serve.address, "/readyz", &[]).status, 200);
    assert_eq!(serve.vectors(&json!({"input": "w1"})).len(), 1);
    drop((idle, half));
}

#[tokio::test]
async fn a_connection_is_kept_for_further_requests() {
    let (_folder, serve) = tiny().await;
    let one = request("/v1/embeddings", &[], br#"{"input": "w1"}"#);
    let keeping = String::from_utf8(one.clone())
        .expect("UTF-8")
        .replace("Connection: close\r\n", "");
    // Two at once, and the last that ends it.
    let mut stream = begin(serve.address, (keeping.clone() + &keeping).as_bytes());
    std::io::Write::write_all(&mut stream, &one).expect("the server reads");
    assert_eq!(rest(stream).matches("HTTP/1.1 200 OK").count(), 3);
}
