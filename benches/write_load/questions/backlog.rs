//! How fast is the stream alone? Rows a second out of a backlog that was prepared, through the product's connection and
//! decoder, next to `pg_recvlogical` on the same backlog.

use std::time::{Duration, Instant};

use lantern::postgres::{connector, tls};
use lantern::replication::pgoutput::{Message, Value, decode};
use lantern::replication::{Frame, Lsn, ReplicationConnection, SlotName};
use serde::Serialize;
use testkit::wait::TIMEOUT;

use crate::capture::{self, Made};
use crate::notes_server::{NotesServer, ROWS};
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    pub rows: usize,
    pub rounds: usize,
}

/// Rows a second of each round, one beside the other.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub ours: f64,
    pub recvlogical: f64,
}

pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Round> {
    let server = NotesServer::new(texts).await;
    capture::publish(&server, Made::Vectors).await;
    // A hundred rows a transaction, as a busy application writes them.
    for number in 0..plan.rows / 100 {
        let from = number * 100 % (ROWS - 100);
        server
            .sql(&format!(
                "INSERT INTO notes (body) SELECT body FROM texts WHERE n > {from} AND n <= {from} + 100"
            ))
            .await;
    }
    let end: String = server.value("SELECT pg_current_wal_lsn()::text").await;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let recvlogical = recvlogical(&server, plan.rows, &end).await;
        let ours = ours(&server, plan.rows).await;
        rounds.push(Round { ours, recvlogical });
    }
    rounds
}

async fn copy_of_the_slot(server: &NotesServer) -> SlotName {
    server
        .sql("SELECT pg_copy_logical_replication_slot('measured', 'copied')")
        .await;
    SlotName::try_from("copied").expect("a name")
}

async fn drop_the_copy(server: &NotesServer) {
    let inactive =
        "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'copied' AND active";
    let interval = Duration::from_millis(10);
    server.until(inactive, interval, TIMEOUT, String::new).await;
    server
        .sql("SELECT pg_drop_replication_slot('copied')")
        .await;
}

async fn recvlogical(server: &NotesServer, rows: usize, end: &str) -> f64 {
    copy_of_the_slot(server).await;
    let begin = Instant::now();
    let mut command = capture::recvlogical(server, "copied");
    let status = command.args(["--endpos", end]).status();
    let status = status.expect("pg_recvlogical runs");
    let elapsed = begin.elapsed();
    assert!(status.success(), "{status}");
    drop_the_copy(server).await;
    rows as f64 / elapsed.as_secs_f64()
}

/// From the connection to the last row's key and text.
async fn ours(server: &NotesServer, rows: usize) -> f64 {
    let slot = copy_of_the_slot(server).await;
    let begin = Instant::now();
    let tls = tls::connector(server.database.tls()).await;
    let tls = tls.expect("no certificates are needed");
    let opened = connector::open(&server.database, &tls, async |opened| {
        ReplicationConnection::connect(opened.socket, opened.tls, &opened.config, &[]).await
    });
    let connection = opened.await.expect("a socket");
    let mut stream = connection
        .expect("a connection")
        .start_replication(&slot, Lsn::ZERO, &["measured"])
        .await
        .expect("a stream");
    let (mut seen, mut bytes) = (0, 0);
    while seen < rows {
        let Frame::XLogData { payload, .. } = stream.next().await.expect("a frame") else {
            continue;
        };
        if let Message::Insert { new, .. } = decode(&payload).expect("a message") {
            seen += 1;
            for value in new.iter() {
                if let Value::Text(text) = value {
                    bytes += text.len();
                }
            }
        }
    }
    let elapsed = begin.elapsed();
    assert!(bytes > 0, "rows have texts");
    drop(stream);
    drop_the_copy(server).await;
    rows as f64 / elapsed.as_secs_f64()
}
