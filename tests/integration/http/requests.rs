//! Requests, byte by byte: a client library would correct what these tests are about.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header; "" where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }
}

/// Sends a request for a path with these headers, each a line.
pub fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let host = format!("Host: {address}");
    let names_host = headers.iter().any(|line| line.starts_with("Host:"));
    let first = format!("GET {path} HTTP/1.1");
    let mut lines = vec![first.as_str(), "Connection: close"];
    lines.extend((!names_host).then_some(host.as_str()));
    lines.extend(headers);
    send(address, &(lines.join("\r\n") + "\r\n\r\n"))
}

/// Sends bytes and reads the answer to its end.
pub fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let timeout = Some(Duration::from_secs(30));
    stream.set_read_timeout(timeout).expect("a timeout");
    stream
        .write_all(request.as_ref())
        .expect("the server reads");
    let mut text = Vec::new();
    // A server may close a connection with unread bytes of a request.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).expect("the answer is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or_else(|| panic!("no status in {head:?}")),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
