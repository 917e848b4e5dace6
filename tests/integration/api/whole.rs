//! A request is answered wholly or leaves nothing behind.

use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::wait::{TIMEOUT, wait_until};

use super::serve::{Serve, begin, request, rest};
use crate::http::requests::get;
use crate::support::program;

/// So many texts that fill the model's window, each another one.
fn long_texts(count: usize) -> Value {
    let text = |number: usize| format!("{number} {}", "photosynthesis ".repeat(60));
    json!({"input": (0..count).map(text).collect::<Vec<_>>()})
}

#[tokio::test]
async fn texts_of_a_client_that_goes_away_leave_the_queue() {
    let mut serve = Serve::start(&program(), &[]).await;
    // Minutes of work.
    let body = long_texts(1100).to_string();
    let stream = begin(
        serve.address,
        &request("/v1/embeddings", &[], body.as_bytes()),
    );
    let id = serve.process.id();
    wait_until("the server works", TIMEOUT, async || {
        let before = testkit::procfs::cpu_time(id);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let used = testkit::procfs::cpu_time(id).saturating_sub(before);
        if used > Duration::from_millis(50) {
            Ok(())
        } else {
            Err(used)
        }
    })
    .await;
    drop(stream);
    wait_until("the server rests", TIMEOUT, async || {
        let before = testkit::procfs::cpu_time(id);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let used = testkit::procfs::cpu_time(id).saturating_sub(before);
        if used < Duration::from_millis(20) {
            Ok(())
        } else {
            Err(used)
        }
    })
    .await;
    let (status, _) = serve.process.terminate().await;
    assert!(status.success());
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_has_begun_and_takes_nothing_more() {
    let mut serve = Serve::start(&program(), &[]).await;
    let (address, body) = (serve.address, long_texts(60).to_string());
    let under_way = begin(address, &request("/v1/embeddings", &[], body.as_bytes()));
    // Idle connections, as clients keep them, hold nothing up.
    let kept = TcpStream::connect(address).expect("the server listens");
    // The server reads in order.
    let _ = get(address, "/readyz", &[]);
    serve.process.signal(Signal::SIGTERM);
    serve.process.wait_for_line("asked to stop", TIMEOUT).await;
    wait_until(
        "no further connection is taken",
        TIMEOUT,
        async || match TcpStream::connect(address) {
            Err(_) => Ok(()),
            Ok(stream) => Err(rest(begin_on(stream))),
        },
    )
    .await;
    let answer = rest(under_way);
    let (head, answer) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let answer: Value = serde_json::from_str(answer).expect("the whole answer");
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(60));
    let (status, _) = serve.process.wait(TIMEOUT).await;
    assert!(status.success());
    drop(kept);
}

/// Asks on a connection, which may be closed at once.
fn begin_on(mut stream: TcpStream) -> TcpStream {
    let _ = std::io::Write::write_all(
        &mut stream,
        &request("/v1/embeddings", &[], br#"{"input": "a"}"#),
    );
    stream
}

#[tokio::test]
async fn until_its_models_are_loaded_a_server_says_so() {
    let serve = Serve::starting(&program(), &[]).await;
    let answer = serve.post("/v1/embeddings", r#"{"input": "a"}"#);
    // On a fast machine it is ready by now.
    if answer.status != 200 {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert!(
            answer.body.contains("no model is loaded yet"),
            "{}",
            answer.body
        );
    }
    serve.process.wait_for_line("ready", TIMEOUT).await;
    assert_eq!(get(serve.address, "/health", &[]).status, 200);
    assert_eq!(serve.vectors(&json!({"input": "a"})).len(), 1);
}
