//! How fast are the passages of a long document written? From the vectors to the commit, next to the same INSERT with
//! vectors that the server has already. Both write a document of 1,000 passages in one transaction, in turn, with durable
//! commits.

use std::time::Instant;

use serde::Serialize;

use crate::notes_server::SETTINGS;
use crate::support::passages::{PassageWriter, create_table};
use crate::support::server::Server;
use crate::texts::Texts;

/// Seconds of each round, one beside the other.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub write_back: f64,
    pub inside: f64,
}

pub const PASSAGES: usize = 1000;
/// Of a passage, as a model of 256 tokens has them.
const BYTES: usize = 700;
const DIMENSIONS: usize = 384;

pub async fn measure(rounds: usize, texts: &Texts) -> Vec<Round> {
    let server = Server::durable(&SETTINGS).await;
    server
        .sql("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        .await;
    server.sql(&create_table(DIMENSIONS)).await;
    let passages = texts.of_size(BYTES, PASSAGES);
    // Positions in characters are those in bytes then.
    let passages: Vec<String> = passages
        .iter()
        .map(|text| text.replace(|c: char| !c.is_ascii(), "?"))
        .collect();
    let text = passages.join("\n\n");
    let inserted = server
        .session
        .execute("INSERT INTO docs VALUES (1, $1)", &[&text])
        .await;
    inserted.expect("the document is inserted");
    let writer = PassageWriter::open(&server.database, DIMENSIONS).await;
    let mut end = 0;
    let parts = passages.iter().map(|passage| {
        let begin = end;
        end = begin + passage.len() + "\n\n".len();
        begin..begin + passage.len()
    });
    let parts: Vec<_> = parts.collect();
    let vector = |number: usize| {
        let value = |d| ((number * 31 + d * 7) % 1000) as f32 / 1000.0;
        (0..DIMENSIONS).map(value).collect()
    };
    let document = writer.document(1, &text, &parts, vector);
    writer.write(&document).await;
    server
        .sql("CREATE TABLE ready AS SELECT * FROM docs_chunks")
        .await;
    server.sql("VACUUM ANALYZE docs, ready").await;
    let mut measured = Vec::new();
    // The first one grows the files and does not count.
    for round in 0..=rounds {
        clear(&server).await;
        let began = Instant::now();
        writer.write(&document).await;
        let write_back = began.elapsed().as_secs_f64();
        clear(&server).await;
        let began = Instant::now();
        server
            .sql("INSERT INTO docs_chunks SELECT * FROM ready")
            .await;
        let inside = began.elapsed().as_secs_f64();
        if round > 0 {
            measured.push(Round { write_back, inside });
        }
    }
    measured
}

async fn clear(server: &Server) {
    server.sql("DELETE FROM docs_chunks").await;
    server.sql("VACUUM docs_chunks").await;
    server.sql("CHECKPOINT").await;
}
