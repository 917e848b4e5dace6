//! An initial backfill over links of several speeds and lengths, against the limit of each: what the link carries, or what
//! the daemon does without a link, whichever is less.
//!
//! The model has 8 dimensions, so the links are the limit and not the inference. The text of a row crosses the link
//! to the daemon twice, by the scan and in the stream of the write-backs, and back once, as the guard of its write-back.
//!
//! The first rows do not count: a job begins with some dozens of round trips, for its publication, its slot and its
//! checks.
//!
//! Run: `cargo bench --bench slow_link` (after `make setup`; two minutes).

#[path = "support/mod.rs"]
mod support;

use std::time::Instant;

use support::stage::Stage;
use testkit::SlowLink;
use testkit::jobs::{Job, insert_job};
use testkit::slow_link::Conditions;
use testkit::tiny_model::TinyModel;

const ROWS: u32 = 20_000;
/// Of each text.
const BYTES: u32 = 1_200;
/// Megabits a second, and the round trip in milliseconds.
const LINKS: [(u64, u64); 6] = [
    (100, 1),
    (100, 20),
    (100, 50),
    (100, 200),
    (10, 50),
    (1, 50),
];

#[tokio::main]
async fn main() {
    let alone = rows_per_second(None, ROWS).await;
    println!("without a link: {alone:.0} rows/s");
    println!(
        "{:>9} {:>10} {:>8} {:>8} {:>6}",
        "Mbit/s", "round trip", "rows/s", "limit", "share"
    );
    for (megabits, round_trip) in LINKS {
        let carried = megabits as f64 * 1e6 / 8.0 / f64::from(2 * BYTES);
        let limit = carried.min(alone);
        // About ten seconds each.
        let rows = (limit * 10.0).min(f64::from(ROWS)) as u32;
        let rate = rows_per_second(Some(Conditions::new(megabits, round_trip)), rows).await;
        let share = rate / limit;
        println!("{megabits:>9} {round_trip:>7} ms {rate:>8.0} {limit:>8.0} {share:>6.2}");
    }
}

async fn rows_per_second(conditions: Option<Conditions>, rows: u32) -> f64 {
    let mut stage = Stage::new().await;
    stage
        .sql(&format!(
            "CREATE TABLE few (id int PRIMARY KEY, body text); INSERT INTO few VALUES (1, 'w1'); \
             CREATE TABLE notes (id int PRIMARY KEY, body text); \
             INSERT INTO notes SELECT n, rpad('w' || n % 400, {BYTES}, ' w' || n % 399) FROM generate_series(1, {rows}) n"
        ))
        .await;
    stage.sql("VACUUM ANALYZE").await;
    // The model is loaded, and the daemon is at rest.
    stage.job("few", TinyModel::One.name()).await;
    stage.start_daemon().await;
    let mut uri = stage.server.uri();
    if let Some(conditions) = conditions {
        let link = SlowLink::before(stage.server.postgres.port(), conditions).await;
        uri = link.through(&uri);
    }
    let job = Job {
        embedding_model: TinyModel::One.name(),
        ..Job::at(uri, "notes", "body", "embedding")
    };
    insert_job(&stage.server.session, job).await;
    let missing = "SELECT (SELECT count(*) FROM pg_attribute WHERE attname = 'embedding' AND attrelid = 'notes'::regclass) - 1";
    while stage.number(missing).await != 0 {}
    let done = "SELECT count(*) FROM notes WHERE embedding IS NOT NULL";
    let mut before = 0;
    while before < i64::from(rows / 10) {
        before = stage.number(done).await;
    }
    let begin = Instant::now();
    stage.wait_for_backfill().await;
    (f64::from(rows) - before as f64) / begin.elapsed().as_secs_f64()
}
