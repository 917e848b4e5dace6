//! What a row costs between the socket and the reader, in rows per second. The server sends some 300,000 a second; the
//! goal is less than 100 ns a row, so that the server is always the limit.
//!
//! Run: `cargo bench --bench decoder` (after `make setup`: a private PostgreSQL sends the messages when the benchmark
//! starts).

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lantern::replication::pgoutput::{Message, decode};
use lantern::replication::{Frame, ReplicationStream};
use testkit::client::{connect, execute};
use testkit::server;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const ROWS: usize = 10_000;

const TABLES: &str = "
CREATE TABLE short (id INT PRIMARY KEY, title TEXT, body TEXT, views INT, updated_at TIMESTAMPTZ);
CREATE TABLE long (LIKE short INCLUDING ALL);
CREATE TABLE whole (LIKE short INCLUDING ALL);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE PUBLICATION short FOR TABLE short;
CREATE PUBLICATION long FOR TABLE long;
CREATE PUBLICATION whole FOR TABLE whole WITH (publish = 'update');
";

const CHANGES: &str = "
INSERT INTO short SELECT n, 'A title of usual length', repeat('Some words. ', 8), NULL, now() FROM generate_series(1, 10000) n;
INSERT INTO long SELECT n, 'A title of usual length', repeat('Some words. ', 350), NULL, now() FROM generate_series(1, 10000) n;
INSERT INTO whole SELECT * FROM short;
UPDATE whole SET views = 1;
";

/// The messages that a server sends for three kinds of changes, 10,000 rows each.
struct Captured {
    short: Vec<Vec<u8>>,
    long: Vec<Vec<u8>>,
    whole: Vec<Vec<u8>>,
}

fn capture() -> Captured {
    let server = server::start(&server::installation(), &[]).expect("a server");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = connect(&server.uri("postgres")).await;
        execute(&client, TABLES).await;
        let create = "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')";
        client.execute(create, &[]).await.expect("a slot");
        execute(&client, CHANGES).await;
        let messages = async |publication: &str| -> Vec<Vec<u8>> {
            let peek = "SELECT data FROM pg_logical_slot_peek_binary_changes('bench', NULL, NULL, \
                        'proto_version', '1', 'publication_names', $1)";
            let rows = client.query(peek, &[&publication]).await.expect("messages");
            let messages: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
            let changes = messages
                .iter()
                .map(|message| read_row(message))
                .sum::<usize>();
            assert_eq!(changes, ROWS, "{publication}");
            messages
        };
        Captured {
            short: messages("short").await,
            long: messages("long").await,
            whole: messages("whole").await,
        }
    })
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
    let captured = capture();
    let sets = [
        ("insert, text of 96 bytes", &captured.short),
        ("insert, text of 4200 bytes", &captured.long),
        ("update with old row", &captured.whole),
    ];
    let mut group = criterion.benchmark_group("decode and read two columns");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, messages) in sets {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                messages
                    .iter()
                    .map(|message| read_row(message))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
    streaming(criterion, &captured.short);
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

fn streaming(criterion: &mut Criterion, messages: &[Vec<u8>]) {
    let bytes = messages
        .iter()
        .flat_map(|message| framed(message))
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

criterion_group!(benches, decoding);
criterion_main!(benches);
