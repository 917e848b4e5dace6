//! What the server pays for questions of a daemon whose jobs follow a trickle of changes: the time that its statements take to
//! be planned and executed (PostgreSQL manual, "pg_stat_statements"), by what they are for, and what is read of a large table.
//!
//! Statements are timed, and not processes, so the figures hold on a machine that does other work too, apart from the
//! statements that it interrupts; the median of three rounds is printed. What a statement costs outside of planner and
//! executor (a message each way, a snapshot) is not in it. Run: `cargo bench --bench watching` (after `make setup`);
//! `-- JOBS SECONDS` for other figures.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use support::server::Server;
use support::stage::Stage;
use testkit::tiny_model::TinyModel;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Rows of the table that is too large to be counted.
const LARGE: u32 = 1_000_000;
const ROUNDS: usize = 3;
/// Jobs are started and their statements prepared after this.
const SETTLING: Duration = Duration::from_secs(15);

/// What statements are for: whether it is watching that a person sees, a word for it, and what its text is like. The first
/// that fits counts.
const KINDS: [(bool, &str, &str); 12] = [
    (true, "state of the slot", "SELECT pg_wal_lsn_diff(now,%"),
    (true, "coverage, sizes", "SELECT sum(pg_relation_size%"),
    (
        true,
        "coverage, rows",
        "SELECT count(*) FILTER (WHERE NULLIF%",
    ),
    (true, "records of jobs", "UPDATE % SET stats = %"),
    (true, "failures table", "%FROM %jobs_failures%"),
    (
        false,
        "watchdog, table",
        "SELECT (SELECT r.oid FROM pg_class r%",
    ),
    (false, "watchdog, publication", "SELECT p.pubinsert%"),
    (
        false,
        "watchdog, database",
        "SELECT COALESCE(d.datallowconn%",
    ),
    (
        false,
        "supervisor, jobs",
        "SELECT %FROM \"public\".\"jobs\" j%",
    ),
    (
        false,
        "supervisor, any change",
        "SELECT pg_current_snapshot()%",
    ),
    (false, "supervisor, daemons", "WITH locks AS MATERIALIZED%"),
    (false, "write-backs, the rest", "%"),
];

/// Of a kind, a second: calls, milliseconds of planning, milliseconds of execution.
type Figure = [f64; 3];
type Figures = [Figure; KINDS.len()];

#[tokio::main]
async fn main() {
    let arguments: Vec<u32> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let jobs = arguments.first().copied().unwrap_or(50);
    let seconds = arguments.get(1).copied().unwrap_or(60);
    let mut stage = prepare(jobs).await;
    stage.start_daemon().await;
    write_for(&stage, jobs, SETTLING).await;
    let before = Large::read(&stage).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        stage.sql("SELECT pg_stat_statements_reset()").await;
        let took = write_for(&stage, jobs, Duration::from_secs(seconds.into())).await;
        rounds.push(read(&stage, took).await);
    }
    let watched = Large::read(&stage).await;
    let minutes = f64::from(seconds) * ROUNDS as f64 / 60.0;
    support::program()
        .stdout_of(&["status", "--uri", &stage.server.uri()])
        .await;
    let shown = Large::read(&stage).await;
    print(jobs, seconds, &rounds);
    println!(
        "read of a table of {LARGE} rows: {:.0} kB a minute by the daemon, {} kB by status; scanned whole {} times",
        (watched.kilobytes - before.kilobytes) as f64 / minutes,
        shown.kilobytes - watched.kilobytes,
        shown.scans - before.scans
    );
}

/// A server, a table for each job, and the large one, whose job leaves its rows as they are.
async fn prepare(jobs: u32) -> Stage {
    let settings = [
        ("shared_preload_libraries", "pg_stat_statements"),
        ("pg_stat_statements.track_planning", "on"),
        ("max_connections", "300"),
        ("max_replication_slots", "200"),
        ("max_wal_senders", "200"),
    ];
    let stage = Stage::on(Server::start(&settings).await).await;
    stage.sql("CREATE EXTENSION pg_stat_statements").await;
    for job in 1..=jobs {
        stage
            .sql(&format!(
                "CREATE TABLE t{job} (id INT PRIMARY KEY, body TEXT); \
                 INSERT INTO t{job} SELECT n, 'row ' || n FROM generate_series(1, 100) n"
            ))
            .await;
        stage.job(&format!("t{job}"), TinyModel::One.name()).await;
    }
    stage
        .sql(&format!(
            "CREATE TABLE large (id INT PRIMARY KEY, body TEXT); \
             INSERT INTO large SELECT n, 'row ' || n FROM generate_series(1, {LARGE}) n"
        ))
        .await;
    stage.sql("VACUUM ANALYZE large").await;
    let server = &stage.server;
    server
        .job_without_backfill("large", TinyModel::One.name())
        .await;
    stage
}

/// Changes a row of each table once a second. Returns how long that took.
async fn write_for(stage: &Stage, jobs: u32, duration: Duration) -> Duration {
    let begin = Instant::now();
    let mut clock = interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while begin.elapsed() < duration {
        clock.tick().await;
        for job in 1..=jobs {
            stage
                .sql(&format!(
                    "UPDATE t{job} SET body = 'changed at ' || clock_timestamp() WHERE id = 1 + floor(random() * 100)"
                ))
                .await;
        }
    }
    begin.elapsed()
}

/// What was read of the large table so far.
struct Large {
    /// From disk or cache.
    kilobytes: i64,
    /// Sequential scans that were begun.
    scans: i64,
}

impl Large {
    async fn read(stage: &Stage) -> Large {
        // What a session has counted becomes visible within a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let of_large = |column: &str, view: &str| {
            format!("SELECT {column} FROM {view} WHERE relname = 'large'")
        };
        let pages = of_large("heap_blks_read + heap_blks_hit", "pg_statio_user_tables");
        Large {
            kilobytes: 8 * stage.number(&pages).await,
            scans: stage
                .number(&of_large("seq_scan", "pg_stat_user_tables"))
                .await,
        }
    }
}

async fn read(stage: &Stage, took: Duration) -> Figures {
    let statements = "SELECT query, calls::float8, total_plan_time, total_exec_time FROM pg_stat_statements \
                      WHERE query NOT LIKE 'UPDATE t%' AND query NOT LIKE '%pg_stat_statements%'";
    let rows = stage.server.session.query(statements, &[]).await;
    let mut figures = Figures::default();
    for row in rows.expect("the statements") {
        let query: String = row.get(0);
        let kind = KINDS
            .iter()
            .position(|(_, _, pattern)| is_like(&query, pattern))
            .expect("the last fits all");
        for (place, figure) in figures[kind].iter_mut().enumerate() {
            *figure += row.get::<_, f64>(place + 1) / took.as_secs_f64();
        }
    }
    figures
}

/// As LIKE of SQL, with `%` alone.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('%');
    let Some(rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut rest = rest;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn print(jobs: u32, seconds: u32, rounds: &[Figures]) {
    println!(
        "{jobs} jobs with one changed row a second each, {ROUNDS} rounds of {seconds} s, the median of them"
    );
    println!(
        "{:<24} {:>9} {:>13} {:>17}",
        "", "calls/s", "% of a core", "of which planning"
    );
    let last = KINDS.len() - 1;
    for (watching, name) in [(true, "watching"), (false, "the daemon's other questions")] {
        println!("{name}");
        let kinds: Vec<usize> = (0..last)
            .filter(|&kind| KINDS[kind].0 == watching)
            .collect();
        for &kind in &kinds {
            line(KINDS[kind].1, rounds, |figures| figures[kind]);
        }
        line("in all", rounds, |figures| {
            let add = |sum: Figure, &kind: &usize| {
                std::array::from_fn(|place| sum[place] + figures[kind][place])
            };
            kinds.iter().fold(Figure::default(), add)
        });
    }
    line(KINDS[last].1, rounds, |figures| figures[last]);
}

fn line(name: &str, rounds: &[Figures], of: impl Fn(&Figures) -> Figure) {
    let median = |of: &dyn Fn(Figure) -> f64, rounds: Vec<Figure>| {
        let mut values: Vec<f64> = rounds.into_iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rounds: Vec<Figure> = rounds.iter().map(of).collect();
    let calls = median(&|[calls, ..]| calls, rounds.clone());
    let time = median(
        &|[_, planning, execution]| planning + execution,
        rounds.clone(),
    );
    let planning = median(&|[_, planning, _]| planning, rounds);
    // A thousand milliseconds a second are a core.
    println!(
        "  {name:<22} {calls:>9.2} {:>12.3}% {:>16.3}%",
        time / 10.0,
        planning / 10.0
    );
}
