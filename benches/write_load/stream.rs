//! The stream alone: rows a second out of a backlog that was prepared, through the product's connection and decoder, next to
//! `pg_recvlogical` on the same backlog.

use std::process::Command;
use std::time::Instant;

use lantern::postgres::tls;
use lantern::replication::pgoutput::{Message, Value, decode};
use lantern::replication::{Frame, Lsn, ReplicationConnection, SlotName};
use serde::Serialize;

use crate::place::Place;
use crate::texts::Texts;

/// What is to be run.
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
    let place = Place::new(texts).await;
    place
        .sql("CREATE PUBLICATION measured FOR TABLE notes (id, body)")
        .await;
    place
        .sql("SELECT pg_create_logical_replication_slot('backlog', 'pgoutput')")
        .await;
    // A hundred rows a transaction, as an application writes them that is in a hurry.
    for _ in 0..plan.rows / 100 {
        place
            .sql("INSERT INTO notes (body) SELECT body FROM texts LIMIT 100 OFFSET 700")
            .await;
    }
    let end: String = place.value("SELECT pg_current_wal_lsn()::text").await;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let recvlogical = recvlogical(&place, plan.rows, &end).await;
        let ours = ours(&place, plan.rows).await;
        rounds.push(Round { ours, recvlogical });
    }
    rounds
}

async fn copy_of_the_slot(place: &Place) -> SlotName {
    place
        .sql("SELECT pg_copy_logical_replication_slot('backlog', 'copied')")
        .await;
    SlotName::try_from("copied").expect("a name")
}

async fn drop_the_copy(place: &Place) {
    let gone =
        "SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = 'copied' AND active";
    while !place.value::<bool>(gone).await {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    place.sql("SELECT pg_drop_replication_slot('copied')").await;
}

async fn recvlogical(place: &Place, rows: usize, end: &str) -> f64 {
    copy_of_the_slot(place).await;
    let begin = Instant::now();
    let status = Command::new(place.server.bindir().join("pg_recvlogical"))
        .args([
            "--start",
            "--no-loop",
            "--file=/dev/null",
            "--fsync-interval=0",
        ])
        .args([
            "--option=proto_version=1",
            "--option=publication_names=measured",
        ])
        .args([
            "--slot=copied",
            "--endpos",
            end,
            "--dbname",
            &place.server.uri("postgres"),
        ])
        .status()
        .expect("pg_recvlogical runs");
    let elapsed = begin.elapsed();
    assert!(status.success(), "{status}");
    drop_the_copy(place).await;
    rows as f64 / elapsed.as_secs_f64()
}

/// From the connection to the last row's key and text.
async fn ours(place: &Place, rows: usize) -> f64 {
    let slot = copy_of_the_slot(place).await;
    let begin = Instant::now();
    let connector = tls::connector(place.database.tls()).expect("no certificates are needed");
    let connection = ReplicationConnection::connect(&place.database.config(), connector, &[]).await;
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
    drop_the_copy(place).await;
    rows as f64 / elapsed.as_secs_f64()
}
