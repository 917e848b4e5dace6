//! What a row costs us between the socket and the reader, in rows per second. The server manages
//! some 300,000 a second; the aim is less than 100 ns a row, so that it is always the limit.

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lantern::replication::pgoutput::{Message, decode};
use lantern::replication::{Frame, ReplicationStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const ROWS: usize = 10_000;

/// The value of a column of type text, as `pgoutput` sends it.
fn text(value: &str) -> Vec<u8> {
    [
        b"t",
        &(value.len() as u32).to_be_bytes()[..],
        value.as_bytes(),
    ]
    .concat()
}

/// A row of `(id int, title text, body text, views int, updated_at timestamptz)`.
fn row(number: usize, body: &str) -> Vec<u8> {
    let columns = [
        text(&number.to_string()),
        text("A title of usual length"),
        text(body),
        b"n".to_vec(),
        text("2024-05-06 07:08:09.123456+00"),
    ];
    [&5_u16.to_be_bytes()[..], &columns.concat()].concat()
}

fn insert(number: usize, body: &str) -> Vec<u8> {
    [b"I\0\0\x40\x01N", &row(number, body)[..]].concat()
}

fn update_with_old_row(number: usize, body: &str) -> Vec<u8> {
    [
        b"U\0\0\x40\x01O",
        &row(number, body)[..],
        b"N",
        &row(number, body),
    ]
    .concat()
}

/// As CopyData with XLogData.
fn framed(payload: &[u8]) -> Vec<u8> {
    let length = (4 + 25 + payload.len()) as u32;
    [b"d", &length.to_be_bytes()[..], b"w", &[0; 24], payload].concat()
}

/// Reads the first and third column: a key and a text.
fn read_row(payload: &[u8]) -> usize {
    match decode(payload).unwrap() {
        Message::Insert { new, .. } | Message::Update { new, .. } => {
            let mut values = new.iter();
            let key = values.next().and_then(|value| value.as_str());
            let body = values.nth(1).and_then(|value| value.as_str());
            black_box((key, body));
            1
        }
        _ => 0,
    }
}

fn decoding(criterion: &mut Criterion) {
    let short = "Some words. ".repeat(8);
    let long = "Some words. ".repeat(350);
    let sets: [(&str, Vec<Vec<u8>>); 3] = [
        (
            "insert, text of 96 bytes",
            (0..ROWS).map(|number| insert(number, &short)).collect(),
        ),
        (
            "insert, text of 4200 bytes",
            (0..ROWS).map(|number| insert(number, &long)).collect(),
        ),
        (
            "update with old row",
            (0..ROWS)
                .map(|number| update_with_old_row(number, &short))
                .collect(),
        ),
    ];
    let mut group = criterion.benchmark_group("decode and read two columns");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, messages) in &sets {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                messages
                    .iter()
                    .map(|message| read_row(message))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

/// A server that sends the same bytes again and again, as fast as they are read.
struct Endless {
    bytes: Vec<u8>,
    position: usize,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = buffer.remaining().min(self.bytes.len() - self.position);
        buffer.put_slice(&self.bytes[self.position..self.position + size]);
        self.position = (self.position + size) % self.bytes.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn streaming(criterion: &mut Criterion) {
    let short = "Some words. ".repeat(8);
    let bytes = (0..ROWS)
        .flat_map(|number| framed(&insert(number, &short)))
        .collect();
    let mut stream = ReplicationStream::over(Endless { bytes, position: 0 });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group("from the socket's buffer to two columns");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("insert, text of 96 bytes", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut rows = 0;
                while rows < ROWS {
                    if let Frame::XLogData { payload, .. } = stream.next().await.unwrap() {
                        rows += read_row(&payload);
                    }
                }
            });
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, streaming);
criterion_main!(benches);
