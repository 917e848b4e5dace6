//! Resident memory of the daemon, at rest and under the loads that could make it grow.
//!
//! The bar: whatever comes, at most 150 MB above the idle daemon with its model loaded. Each load is put on a daemon
//! that has just been started; the peak is the kernel's high-water mark (`VmHWM`). All but the last use a model of 8
//! dimensions made by the tests, since a real one would take hours for a million rows: it runs through ONNX Runtime as
//! any other, so that everything but the inference itself is as large as ever. The last one runs a real model for a
//! while.
//!
//! Run: `cargo bench --bench memory` (after `make setup`; 15 GB of disk, half an hour), or with `-- --quick`. Names of
//! loads (`-- backlog by-key`) leave out the others.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use support::stage::Stage;
use testkit::engine::MODEL;
use testkit::procfs;
use testkit::procfs::Resident;
use testkit::tiny_model::{DIMENSIONS, TinyModel};

const BAR: u64 = 150 << 20;

/// A text of about 50 bytes, one of 8 kB that is stored out of line, and one of 256 kB.
const SHORT: &str = "'w' || n % 400 || ' w' || n % 399 || ' and some words that it does not know'";
const LONG: &str = "'w' || n % 400 || repeat(' w12 w77 w301', 620)";

const LARGE: &str = "'w' || n % 400 || repeat(' w12 w77 w301', 20000)";

struct Sizes {
    transaction_rows: u64,
    backlog_bytes: u64,
    table_rows: u64,
    large_texts: u64,
    real_model: Duration,
}

const FULL: Sizes = Sizes {
    transaction_rows: 1_000_000,
    backlog_bytes: 5 << 30,
    table_rows: 2_000_000,
    large_texts: 4_000,
    real_model: Duration::from_secs(120),
};

const QUICK: Sizes = Sizes {
    transaction_rows: 50_000,
    backlog_bytes: 200 << 20,
    table_rows: 50_000,
    large_texts: 1_000,
    real_model: Duration::from_secs(20),
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let sizes = match arguments.iter().any(|argument| argument == "--quick") {
        true => QUICK,
        false => FULL,
    };
    // `cargo bench` adds flags of its own.
    let named = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'));
    let named: Vec<&str> = named.map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failed = runtime.block_on(run(&sizes, &named));
    assert!(!failed, "above the bar of {} MB", megabytes(BAR));
}

const LOADS: [&str; 6] = [
    "transaction",
    "backlog",
    "table",
    "large",
    "by-key",
    "real-model",
];

/// Whether a load was above the bar.
async fn run(sizes: &Sizes, named: &[&str]) -> bool {
    println!(
        "{:<58} {:>6} {:>6} {:>7} {:>6} {:>8}",
        "MB resident", "idle", "peak", "growth", "after", "seconds"
    );
    let mut failed = false;
    for load in LOADS {
        if !named.is_empty() && !named.contains(&load) {
            continue;
        }
        let growth = match load {
            "transaction" => transaction(sizes).await,
            "backlog" => backlog(sizes).await,
            "table" => table(sizes).await,
            "large" => large_texts(sizes).await,
            "by-key" => large_texts_by_key(sizes).await,
            _ => real_model(sizes).await,
        };
        failed |= growth > BAR;
    }
    failed
}

/// One transaction, of which nothing can be confirmed before its last row is written.
async fn transaction(sizes: &Sizes) -> u64 {
    let mut stage = stage_with(
        "CREATE TABLE notes (id bigint PRIMARY KEY, body text)",
        TinyModel::One.name(),
    )
    .await;
    let idle = warm(&mut stage, SHORT).await;
    let rows = sizes.transaction_rows;
    stage
        .sql(&format!(
            "INSERT INTO notes SELECT n, {SHORT} FROM generate_series(10, 9 + {rows}) AS n"
        ))
        .await;
    let elapsed = stage.wait_until_confirmed("notes").await;
    line(
        &stage,
        &format!("one transaction of {rows} rows"),
        idle,
        elapsed,
    )
}

/// Long texts and short ones that gathered while no daemon ran.
async fn backlog(sizes: &Sizes) -> u64 {
    let mut stage = stage_with(
        "CREATE TABLE notes (id bigint PRIMARY KEY, body text); ALTER TABLE notes ALTER body SET STORAGE EXTERNAL",
        TinyModel::One.name(),
    )
    .await;
    let idle = warm(&mut stage, LONG).await;
    stage.stop_daemon();
    let behind = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots";
    let mut from = 10;
    while stage.number(behind).await.unsigned_abs() < sizes.backlog_bytes {
        stage
            .sql(&format!(
                "INSERT INTO notes SELECT n, {LONG} FROM generate_series({from}, {from} + 3999) AS n; \
                 INSERT INTO notes SELECT n, {SHORT} FROM generate_series({from} + 4000, {from} + 9999) AS n; \
                 UPDATE notes SET body = body || '.' WHERE id BETWEEN {from} AND {from} + 99"
            ))
            .await;
        from += 10_000;
    }
    let gathered = stage.number(behind).await.unsigned_abs();
    stage.spawn_daemon(&[]);
    let elapsed = stage.wait_until_confirmed("notes").await;
    let name = format!(
        "a backlog of {} MB of WAL, {from} rows",
        megabytes(gathered)
    );
    line(&stage, &name, idle, elapsed)
}

/// An existing table.
async fn table(sizes: &Sizes) -> u64 {
    let rows = sizes.table_rows;
    let name = format!("a table of {rows} rows, a second job");
    second_job(&name, rows, SHORT).await
}

/// Rows of which some hundred are as much as the daemon takes at a time.
async fn large_texts(sizes: &Sizes) -> u64 {
    let rows = sizes.large_texts;
    let name = format!("a table of {rows} rows of 256 kB");
    second_job(&name, rows, LARGE).await
}

/// The backfill of a table with these texts.
async fn second_job(name: &str, rows: u64, text: &str) -> u64 {
    let backfill = Stage::measure_backfill(&format!(
        "CREATE TABLE few (id bigint PRIMARY KEY, body text); \
         CREATE TABLE notes (id bigint PRIMARY KEY, body text, embedding vector({DIMENSIONS})); \
         INSERT INTO notes SELECT n, {text} FROM generate_series(1, {rows}) AS n"
    ))
    .await;
    print_line(name, backfill.idle, backfill.resident, backfill.elapsed)
}

/// The stream does not carry generated texts, so their sizes are unknown until they are read.
async fn large_texts_by_key(sizes: &Sizes) -> u64 {
    let mut stage = stage_with(
        "CREATE TABLE notes (id bigint PRIMARY KEY, raw text, body text GENERATED ALWAYS AS (raw || '.') STORED)",
        TinyModel::One.name(),
    )
    .await;
    stage.start_daemon().await;
    let idle = stage.resident_at_rest().await;
    let rows = sizes.large_texts;
    stage
        .sql(&format!(
            "INSERT INTO notes SELECT n, {LARGE} FROM generate_series(1, {rows}) AS n"
        ))
        .await;
    let elapsed = stage.wait_until_confirmed("notes").await;
    let name = format!("{rows} rows of 256 kB, read by key");
    line(&stage, &name, idle, elapsed)
}

/// Inference counts too: texts of all lengths, from the stream and from the table, for a while.
async fn real_model(sizes: &Sizes) -> u64 {
    let mut stage = stage_with(
        "CREATE TABLE notes (id bigint PRIMARY KEY, body text)",
        MODEL,
    )
    .await;
    let idle = warm(&mut stage, SHORT).await;
    stage
        .sql(
            "INSERT INTO notes SELECT n, repeat('A text of some words. ', 1 + n % 150) FROM generate_series(10, 200000) AS n",
        )
        .await;
    tokio::time::sleep(sizes.real_model).await;
    line(
        &stage,
        &format!("{MODEL} at full load"),
        idle,
        sizes.real_model,
    )
}

/// A stage with a table `notes` and its job.
async fn stage_with(table: &str, model: &str) -> Stage {
    let stage = Stage::new().await;
    stage.sql(table).await;
    stage.job("notes", model).await;
    stage
}

/// A daemon at rest that has embedded a handful of rows; returns its memory.
async fn warm(stage: &mut Stage, text: &str) -> u64 {
    stage.start_daemon().await;
    stage
        .sql(&format!(
            "INSERT INTO notes SELECT n, {text} FROM generate_series(1, 9) AS n"
        ))
        .await;
    stage.wait_until_confirmed("notes").await;
    stage.resident_at_rest().await
}

/// Prints the line of a daemon that still runs; returns the growth.
fn line(stage: &Stage, load: &str, idle: u64, elapsed: Duration) -> u64 {
    print_line(load, idle, procfs::resident(stage.daemon().id()), elapsed)
}

/// Prints a line of the table; returns the growth.
fn print_line(load: &str, idle: u64, resident: Resident, elapsed: Duration) -> u64 {
    let growth = resident.peak.saturating_sub(idle);
    println!(
        "{load:<58} {:>6} {:>6} {:>7} {:>6} {:>8.0}",
        megabytes(idle),
        megabytes(resident.peak),
        megabytes(growth),
        megabytes(resident.now),
        elapsed.as_secs_f64()
    );
    growth
}

fn megabytes(bytes: u64) -> u64 {
    bytes >> 20
}
