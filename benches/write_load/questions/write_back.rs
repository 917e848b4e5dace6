//! How fast are write-backs? Rows a second when vectors are ready, next to the same UPDATE with vectors that the server
//! has already. Both write the same rows in transactions of the same size, in turn, with durable commits.

use std::time::Instant;

use serde::Serialize;

use crate::notes_server::SETTINGS;
use crate::support::server::Server;
use crate::support::writer::{Embedded, RowWriter};
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    /// Rows of the table, a multiple of [`BATCH`].
    pub rows: usize,
    pub rounds: usize,
}

/// Rows a second of each round, one beside the other.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub write_back: f64,
    pub inside: f64,
}

/// Rows of a transaction, as in the daemon.
pub const BATCH: usize = 512;
const DIMENSIONS: usize = 384;

pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Round> {
    let server = Server::durable(&SETTINGS).await;
    let texts = texts.first(plan.rows);
    prepare(&server, &texts).await;
    let writer = RowWriter::open(&server.database, "notes", DIMENSIONS).await;
    let mut rounds = Vec::new();
    // The first one grows the table's file and does not count.
    for round in 0..=plan.rounds {
        let write_back = write_back(&writer, &texts, round).await;
        server.sql("VACUUM notes").await;
        let inside = inside(&server, plan.rows).await;
        server.sql("VACUUM notes").await;
        if round > 0 {
            rounds.push(Round { write_back, inside });
        }
    }
    rounds
}

async fn prepare(server: &Server, texts: &[String]) {
    let rows = texts.len();
    server
        .sql(&format!(
            "CREATE TABLE notes (id bigint PRIMARY KEY, body text, embedding vector({DIMENSIONS})) WITH (fillfactor = 50);
             CREATE TABLE ready AS
               SELECT i::bigint AS id, (SELECT array_agg(random()::real) FROM generate_series(1, {DIMENSIONS}) WHERE i > 0)::vector AS v
               FROM generate_series(1, {rows}) i;
             ALTER TABLE ready ADD PRIMARY KEY (id)"
        ))
        .await;
    let insert =
        "INSERT INTO notes SELECT n, body FROM unnest($1::text[]) WITH ORDINALITY AS u(body, n)";
    let inserted = server.session.execute(insert, &[&texts]).await;
    inserted.expect("the texts are inserted");
    server.sql("VACUUM ANALYZE notes, ready").await;
    server.sql("CHECKPOINT").await;
}

/// Through the daemon's writer; every row has to be written.
async fn write_back(writer: &RowWriter, texts: &[String], round: usize) -> f64 {
    let embedded = |(number, text): (usize, &String)| {
        let id = number + 1;
        let value = |d| ((id * 31 + d * 7 + round) % 1000) as f32 / 1000.0;
        Embedded::new(id as i64, text, (0..DIMENSIONS).map(value).collect())
    };
    let rows: Vec<Embedded> = texts.iter().enumerate().map(embedded).collect();
    let began = Instant::now();
    for batch in rows.chunks(BATCH) {
        let written = writer.write(batch).await;
        assert_eq!(written, batch.len(), "every row is written");
    }
    rows.len() as f64 / began.elapsed().as_secs_f64()
}

async fn inside(server: &Server, rows: usize) -> f64 {
    let began = Instant::now();
    for from in (0..rows).step_by(BATCH) {
        server
            .sql(&format!(
                "UPDATE notes t SET embedding = r.v FROM ready r WHERE r.id = t.id AND r.id > {from} AND r.id <= {from} + {BATCH}"
            ))
            .await;
    }
    rows as f64 / began.elapsed().as_secs_f64()
}
