//! A running `lantern-cli serve`, and requests to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lantern::shown::shown;
use serde_json::Value;
use testkit::wait::TIMEOUT;
use testkit::{Process, Program};

use crate::http::requests::{Answer, send};

/// A server that is ready. It is killed when the value is dropped.
pub struct Serve {
    pub process: Process,
    pub address: SocketAddr,
}

impl Serve {
    /// Starts a server with these arguments and waits for its models.
    pub async fn start(program: &Program, arguments: &[&str]) -> Serve {
        let serve = Serve::starting(program, arguments).await;
        serve.process.wait_for_line("ready", TIMEOUT).await;
        serve
    }

    /// Starts a server, which may still load its models.
    pub async fn starting(program: &Program, arguments: &[&str]) -> Serve {
        let mut command = program.command("serve");
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let process = Process::spawn(command);
        let line = process.wait_for_line("embeddings at http", TIMEOUT).await;
        let (_, rest) = line.split_once("://").expect("an address");
        let (address, _) = rest.split_once('/').expect("a path");
        let address = address.parse().expect("an address with its port");
        Serve { process, address }
    }

    /// The answer to a request with this body.
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        post(self.address, path, body)
    }

    /// The vectors of a request to `/v1/embeddings`, in their order.
    pub fn vectors(&self, body: &Value) -> Vec<Vec<f32>> {
        vectors(self.address, body)
    }
}

/// The answer to a request with this body.
pub fn post(address: SocketAddr, path: &str, body: impl AsRef<[u8]>) -> Answer {
    send(address, request(path, &[], body.as_ref()))
}

/// The bytes of a request with this body and these headers, each a line, on a connection that is closed then.
pub fn request(path: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut lines = vec![format!("POST {path} HTTP/1.1")];
    lines.push("Host: localhost".into());
    lines.push("Connection: close".into());
    lines.push(format!("Content-Length: {}", body.len()));
    if !headers.iter().any(|line| line.starts_with("Content-Type:")) {
        lines.push("Content-Type: application/json".into());
    }
    lines.extend(headers.iter().map(|line| (*line).to_owned()));
    [(lines.join("\r\n") + "\r\n\r\n").as_bytes(), body].concat()
}

/// The vectors of a request to `/v1/embeddings`, in their order.
pub fn vectors(address: SocketAddr, body: &Value) -> Vec<Vec<f32>> {
    let answer = post(address, "/v1/embeddings", body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    let data = answer["data"].as_array().expect("an array");
    let embedding = |(place, object): (usize, &Value)| {
        assert_eq!(object["index"], place);
        assert_eq!(object["object"], "embedding");
        serde_json::from_value(object["embedding"].clone()).expect("numbers")
    };
    data.iter().enumerate().map(embedding).collect()
}

/// The error of an answer in OpenAI's shape: its status, type, code, param and message.
pub fn openai_error(answer: &Answer) -> (u16, String, String, String, String) {
    let body: Value = serde_json::from_str(&answer.body)
        .unwrap_or_else(|error| panic!("{error}: {}", shown(&answer.body)));
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (
        answer.status,
        text("type"),
        text("code"),
        text("param"),
        text("message"),
    )
}

/// A connection on which bytes were sent.
pub fn begin(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let timeout = Some(Duration::from_secs(30));
    stream.set_read_timeout(timeout).expect("a timeout");
    stream.write_all(bytes).expect("the server reads");
    stream
}

/// What comes on a connection until the server closes it.
pub fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8(all).expect("UTF-8")
}

/// Whether two vectors are the same up to rounding.
pub fn is_near(left: &[f32], right: &[f32]) -> bool {
    let pairs = left.iter().zip(right);
    left.len() == right.len() && pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5
}
