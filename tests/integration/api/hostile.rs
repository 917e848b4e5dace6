//! Requests that are wrong, broken or not meant well.

use std::io::Write;
use std::net::SocketAddr;

use lantern::shown::shown;
use testkit::data_path;

use super::serve::{Serve, begin, openai_error, post, request, rest};
use crate::http::requests::{Answer, get, send};
use crate::support::program;

const TOKEN: &str = "a-program-has-this-token";

/// A request with these headers.
fn with_headers(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    send(
        address,
        request(path, headers, br#"{"input": "w1", "inputs": "w1"}"#),
    )
}

/// A body, the field that is at fault, and what is said of it.
type Case<'a> = (&'a [u8], &'a str, &'a str);

const CASES: &[Case] = &[
    (b"", "", "the body is not JSON"),
    (b"{", "", "the body is not JSON"),
    (b"hello", "", "the body is not JSON"),
    (b"[]", "", "invalid"),
    (b"null", "", "expected struct"),
    (b"{}", "", "missing field `input`"),
    (
        br#"{"input": "a"} {"input": "b"}"#,
        "",
        "trailing characters",
    ),
    (
        br#"{"input": null}"#,
        "input",
        "expected a string, an array of strings",
    ),
    (
        br#"{"input": 1}"#,
        "input",
        "expected a string, an array of strings",
    ),
    (
        br#"{"input": true}"#,
        "input",
        "expected a string, an array of strings",
    ),
    (
        br#"{"input": {"text": "a"}}"#,
        "input",
        "expected a string, an array of strings",
    ),
    (br#"{"input": []}"#, "input", "the array is empty"),
    (br#"{"input": ""}"#, "input", "text 0 is empty"),
    (br#"{"input": ["a", ""]}"#, "input", "text 1 is empty"),
    (br#"{"input": ["a", 1]}"#, "input", "input[1]: invalid type"),
    (
        br#"{"input": ["a", null]}"#,
        "input",
        "input[1]: invalid type",
    ),
    (br#"{"input": [["a"]]}"#, "input", "invalid type"),
    (
        br#"{"input": [-1]}"#,
        "input",
        "expected a string, a token id",
    ),
    (
        br#"{"input": [1.5]}"#,
        "input",
        "expected a string, a token id",
    ),
    (br#"{"input": NaN}"#, "", "the body is not JSON"),
    (br#"{"input": [1e400]}"#, "", "out of range"),
    (b"{\"input\": \"\xff\xfe\"}", "", "unicode"),
    (b"{\"input\": \"\xed\xa0\x80\"}", "", "unicode"),
    (br#"{"input": "\ud800"}"#, "", "the body is not JSON"),
    (b"{\"input\": \"a\nb\"}", "", "control character"),
    (
        b"\xef\xbb\xbf{\"input\": \"a\"}",
        "",
        "the body is not JSON",
    ),
    (br#"{"input": "a", "input": "b"}"#, "", "duplicate field"),
    (
        br#"{"input": "a", "inputType": "query"}"#,
        "inputType",
        "unknown field",
    ),
    (
        br#"{"input": "a", "input_type": "Query"}"#,
        "input_type",
        "expected one of `query`, `document`",
    ),
    (
        br#"{"input": "a", "encoding_format": "int8"}"#,
        "encoding_format",
        "`float` or `base64`",
    ),
    (
        br#"{"input": "a", "model": 1}"#,
        "model",
        "expected a string",
    ),
    (
        br#"{"input": "a", "user": {}}"#,
        "user",
        "expected a string",
    ),
    (
        br#"{"input": "a", "dimensions": "8"}"#,
        "dimensions",
        "expected usize",
    ),
    (
        br#"{"input": "a", "dimensions": -1}"#,
        "dimensions",
        "expected usize",
    ),
    (
        br#"{"input": "a", "dimensions": 8.5}"#,
        "dimensions",
        "expected usize",
    ),
    (
        br#"{"input": "a", "dimensions": 0}"#,
        "dimensions",
        "dimensions cannot be 0",
    ),
];

#[tokio::test]
async fn a_malformed_request_is_told_which_field_is_at_fault() {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let serve = Serve::start(&program, &["--model", "chaos/one"]).await;
    let deep = "[".repeat(1 << 20);
    let deep_object = format!(r#"{{"input": {}"#, r#"{"a": "#.repeat(100_000));
    let huge = format!(r#"{{"input": "a", "dimensions": 1{}}}"#, "0".repeat(400));
    let digits = format!(r#"{{"input": [{}]}}"#, "9".repeat(1 << 20));
    let long_name = format!(r#"{{"input": "a", "{}": 1}}"#, "ü".repeat(1 << 20));
    let long_model = "m".repeat(1 << 20);
    let unknown = serve.post(
        "/v1/embeddings",
        format!(r#"{{"input": "a", "model": "{long_model}"}}"#),
    );
    assert_eq!((unknown.status, unknown.body.len() < 2000), (404, true));
    let answer = serve.post("/v1/embeddings", long_name);
    assert_eq!((answer.status, answer.body.len() < 4000), (400, true));
    let generated: [Case; 4] = [
        (deep.as_bytes(), "", ""),
        (deep_object.as_bytes(), "input", "expected a string"),
        (huge.as_bytes(), "", "number out of range"),
        (digits.as_bytes(), "", "number out of range"),
    ];
    let cases = CASES.iter().chain(&generated);
    for &(body, param, words) in cases {
        let answer = serve.post("/v1/embeddings", body);
        let what = shown(&String::from_utf8_lossy(&body[..body.len().min(80)]));
        let (status, kind, _, found, message) = openai_error(&answer);
        assert_eq!(
            (status, kind.as_str()),
            (400, "invalid_request_error"),
            "{what}: {message}"
        );
        assert_eq!(found, param, "{what}: {message}");
        assert!(message.contains(words), "{what}: {message}");
        assert!(message.len() < 1000, "{what}: {message}");
    }
    assert_eq!(serve.vectors(&serde_json::json!({"input": "w1"})).len(), 1);
}

#[tokio::test]
async fn other_methods_paths_and_types_are_refused_in_the_shape_of_the_path() {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let serve = Serve::start(&program, &["--model", "chaos/one"]).await;
    let address = serve.address;
    for path in ["/v1/embeddings", "/embed"] {
        let answer = get(address, path, &[]);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "POST"),
            "{path}"
        );
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "",
        ] {
            // A page of another site may send these without asking.
            let answer = with_headers(address, path, &[&format!("Content-Type: {kind}")]);
            assert_eq!(answer.status, 415, "{path} {kind}");
            assert!(
                answer.body.contains("Content-Type: application/json"),
                "{}",
                answer.body
            );
        }
        for kind in ["application/json; charset=utf-8", "Application/JSON"] {
            let answer = with_headers(address, path, &[&format!("Content-Type: {kind}")]);
            assert_ne!(answer.status, 415, "{path} {kind}");
        }
        let answer = with_headers(address, path, &["Origin: http://evil.example"]);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    for path in ["/v1", "/v1/", "/v1/chat/completions", "/v1/embeddings/"] {
        let (status, _, code, ..) = openai_error(&post(address, path, "{}"));
        assert_eq!((status, code.as_str()), (404, "unknown_url"), "{path}");
    }
    let preflight =
        format!("OPTIONS /v1/embeddings HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    assert_eq!(send(address, preflight).status, 405);
    let foreign = request("/v1/embeddings", &[], br#"{"input": "w1"}"#);
    let foreign = String::from_utf8(foreign)
        .expect("UTF-8")
        .replace("localhost", "evil.example");
    let (status, _, _, _, message) = openai_error(&send(address, foreign));
    assert_eq!(status, 421, "{message}");
    for path in ["/", "/metrics", "/api/status"] {
        assert_eq!(get(address, path, &[]).status, 404, "{path}");
    }
}

#[tokio::test]
async fn without_the_token_nothing_is_embedded_or_told() {
    let folder = data_path::with_tiny_models();
    let program = program()
        .with_data_path(folder.path())
        .with_env("LANTERN_LISTEN_TOKEN", TOKEN);
    let serve = Serve::start(&program, &["--model", "chaos/one"]).await;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for wrong in [
        vec![],
        vec!["Authorization: Bearer sk-none"],
        vec!["Authorization: nonsense"],
    ] {
        let answer = with_headers(serve.address, "/v1/embeddings", &wrong);
        let (status, kind, code, ..) = openai_error(&answer);
        assert_eq!(
            (status, kind.as_str(), code.as_str()),
            (401, "invalid_request_error", "invalid_api_key")
        );
        assert_eq!(
            answer.head.matches("www-authenticate: ").count(),
            1,
            "{}",
            answer.head
        );
        for path in ["/v1/models", "/v1/models/chaos/one", "/v1/none"] {
            let answer = get(serve.address, path, &wrong);
            assert_eq!(openai_error(&answer).0, 401, "{path}");
            assert!(!answer.body.contains("chaos"), "{}", answer.body);
        }
        let answer = with_headers(serve.address, "/embed", &wrong);
        assert_eq!(answer.status, 401);
        assert!(
            answer.body.contains(r#""error_type":"Validation""#),
            "{}",
            answer.body
        );
        assert_eq!(get(serve.address, "/info", &wrong).status, 401);
        assert_eq!(get(serve.address, "/health", &wrong).status, 200);
    }
    for path in ["/v1/embeddings", "/embed"] {
        let answer = with_headers(serve.address, path, &[&bearer]);
        assert!(
            matches!(answer.status, 200 | 400),
            "{path}: {}",
            answer.body
        );
        assert!(!answer.body.contains(TOKEN));
    }
    let unread = begin(
        serve.address,
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n{",
    );
    // It need not send its body to hear that it has no token.
    assert!(rest(unread).starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn what_is_no_http_closes_the_connection_and_nothing_else() {
    let folder = data_path::with_tiny_models();
    let program = program().with_data_path(folder.path());
    let serve = Serve::start(&program, &["--model", "chaos/one"]).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut stream = begin(serve.address, bytes);
        let _ = stream.flush();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = rest(stream);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(serve.vectors(&serde_json::json!({"input": "w1"})).len(), 1);
}
