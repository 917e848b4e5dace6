//! As much of HTTP/1.1 as the hub needs: one request for each connection, ranges that begin at a byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use super::{Fault, Request};

/// An answer.
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub fault: Option<Fault>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            fault: None,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Reads a request and sends its answer.
pub(super) fn answer(
    connection: &TcpStream,
    make: impl FnOnce(Request) -> Answer,
) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        range: None,
        authorization: None,
        at_storage: false,
    };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            let value = Some(value.trim().to_owned());
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = value,
                "authorization" => request.authorization = value,
                _ => {}
            }
        }
    }
    let (is_head, range) = (request.method == "HEAD", request.range.clone());
    send(connection, make(request), is_head, range.as_deref())
}

fn send(
    mut connection: &TcpStream,
    answer: Answer,
    is_head: bool,
    range: Option<&str>,
) -> io::Result<()> {
    let total = answer.body.len();
    let from = range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    let heeds_range = answer.fault != Some(Fault::NoRange);
    let from = from.filter(|from| answer.status == 200 && heeds_range && *from < total);
    let (status, body) = match from {
        Some(from) => (206, &answer.body[from..]),
        None => (answer.status, &answer.body[..]),
    };
    let mut head = format!(
        "HTTP/1.1 {status} Answer\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    if let Some(from) = from {
        head += &format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1);
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all((head + "\r\n").as_bytes())?;
    if is_head {
        return Ok(());
    }
    match answer.fault {
        Some(Fault::CutAfter(bytes)) => {
            connection.write_all(&body[..bytes.min(body.len())])?;
            connection.shutdown(Shutdown::Both)
        }
        Some(Fault::StallAfter(bytes)) => {
            connection.write_all(&body[..bytes.min(body.len())])?;
            // Until the client gives up.
            connection.read(&mut [0]).map(drop)
        }
        Some(Fault::Damaged) => {
            let mut damaged = body.to_vec();
            if let Some(byte) = damaged.last_mut() {
                *byte ^= 1;
            }
            connection.write_all(&damaged)
        }
        Some(Fault::Slow(pause)) => body.chunks(1024).try_for_each(|chunk| {
            thread::sleep(pause);
            connection.write_all(chunk)
        }),
        _ => connection.write_all(body),
    }
}
