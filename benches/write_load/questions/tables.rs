//! Does the size of a table matter to its first run? Rows a second and memory of a backfill, with a model that takes
//! next to no time, so that everything else shows.

use serde::Serialize;
use testkit::tiny_model::DIMENSIONS;

use crate::support::stage::Stage;

/// One table.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    pub rows: u64,
    /// Rows a second.
    pub rate: f64,
    /// Resident memory of the daemon in bytes: before the job, and at its highest.
    pub idle: u64,
    pub peak: u64,
}

pub async fn measure(sizes: &[u64]) -> Vec<Table> {
    let mut tables = Vec::new();
    for &rows in sizes {
        tables.push(backfill(rows).await);
    }
    tables
}

async fn backfill(rows: u64) -> Table {
    let backfill = Stage::measure_backfill(&format!(
        "CREATE TABLE few (id bigint PRIMARY KEY, body text);
         INSERT INTO few SELECT n, 'w' || n FROM generate_series(1, 5000) AS n;
         CREATE TABLE notes (id bigint PRIMARY KEY, body text, embedding vector({DIMENSIONS}));
         INSERT INTO notes SELECT n, 'w' || n % 400 || ' w' || n % 399 || ' and some words that it does not know'
         FROM generate_series(1, {rows}) AS n"
    ))
    .await;
    Table {
        rows,
        rate: rows as f64 / backfill.elapsed.as_secs_f64(),
        idle: backfill.idle,
        peak: backfill.resident.peak,
    }
}
