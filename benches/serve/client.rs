//! A client that costs as little as can be: it runs on the cores of the server that it measures. One connection, one
//! request at a time, as a program sends its query.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to a server with `/v1/embeddings`.
pub struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await;
        let stream = stream.expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        let answer = Vec::with_capacity(16 << 10);
        Client { stream, answer }
    }

    /// Asks for the vector of a text, and reads the answer to its end.
    pub async fn ask(&mut self, request: &[u8]) {
        self.stream
            .write_all(request)
            .await
            .expect("the server reads");
        self.answer.clear();
        while !is_whole(&self.answer) {
            let read = self.stream.read_buf(&mut self.answer).await;
            assert!(read.expect("the server answers") > 0, "the server left");
        }
        assert!(
            self.answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&self.answer)
        );
    }

    /// The vector of the last answer.
    pub fn vector(&self) -> Vec<f32> {
        let body = body_at(&self.answer).expect("a whole answer");
        let answer: Value = serde_json::from_slice(&self.answer[body..]).expect("JSON");
        let text = answer["data"][0]["embedding"].as_str().expect("base64");
        let bytes = STANDARD.decode(text).expect("base64");
        let values = bytes.chunks_exact(4);
        values
            .map(|value| f32::from_le_bytes(value.try_into().expect("four bytes")))
            .collect()
    }
}

/// The bytes of a request for the vector of a text, in base64, as the clients of OpenAI ask for it.
pub fn request(text: &str) -> Vec<u8> {
    let body = json!({"input": [text], "encoding_format": "base64"}).to_string();
    let length = body.len();
    format!(
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Where the body of an answer begins.
fn body_at(answer: &[u8]) -> Option<usize> {
    Some(memchr::memmem::find(answer, b"\r\n\r\n")? + 4)
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(body) = body_at(answer) else {
        return false;
    };
    let head = String::from_utf8_lossy(&answer[..body]).to_lowercase();
    let (_, length) = head.split_once("content-length: ").expect("a length");
    let length: usize = length
        .split("\r\n")
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a number");
    answer.len() >= body + length
}
