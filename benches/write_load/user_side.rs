//! What it costs the users of a database that its changes are captured: transactions a second, their latency, and the
//! processor time of their own server processes.

use std::fs;
use std::time::Duration;

use serde::Serialize;

use crate::capture::{Capture, Inference, Way};
use crate::place::ROWS;
use crate::texts::Texts;
use crate::{cpu, pgbench};

/// What users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    Insert,
    UpdateText,
    UpdateOther,
    BulkInsert,
    Copy,
}

/// Rows of one bulk INSERT, and of one COPY.
const BULK: usize = 100;
const COPY: usize = 500;

impl Statement {
    pub const ALL: [Statement; 5] = [
        Statement::Insert,
        Statement::UpdateText,
        Statement::UpdateOther,
        Statement::BulkInsert,
        Statement::Copy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Statement::Insert => "INSERT",
            Statement::UpdateText => "UPDATE of the text",
            Statement::UpdateOther => "UPDATE of another column",
            Statement::BulkInsert => "INSERT of 100 rows",
            Statement::Copy => "COPY of 500 rows",
        }
    }

    fn rows(self) -> usize {
        match self {
            Statement::BulkInsert => BULK,
            Statement::Copy => COPY,
            _ => 1,
        }
    }

    /// For pgbench; `copy` is the file that COPY reads.
    fn script(self, copy: &str) -> String {
        let last = ROWS - BULK;
        match self {
            Statement::Insert => format!(
                "\\set n random(1, {ROWS})\nINSERT INTO notes (body) SELECT body FROM texts WHERE n = :n;\n"
            ),
            Statement::UpdateText => format!(
                "\\set n random(1, {ROWS})\n\\set id random(1, {ROWS})\n\
                 UPDATE notes SET body = (SELECT body FROM texts WHERE n = :n) WHERE id = :id;\n"
            ),
            Statement::UpdateOther => format!(
                "\\set id random(1, {ROWS})\nUPDATE notes SET views = views + 1 WHERE id = :id;\n"
            ),
            Statement::BulkInsert => format!(
                "\\set n random(1, {last})\nINSERT INTO notes (body) SELECT body FROM texts WHERE n BETWEEN :n AND :n + {};\n",
                BULK - 1
            ),
            Statement::Copy => format!("COPY notes (body) FROM '{copy}';\n"),
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub statement: Statement,
    pub clients: u32,
    pub way: Way,
    pub round: u32,
    /// Transactions a second.
    pub tps: f64,
    /// Latencies in milliseconds.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// Microseconds of processor time a row: in the users' own server processes, in the walsender, and outside of the server.
    pub backend: f64,
    pub walsender: f64,
    pub outside: f64,
    /// Bytes of WAL a row.
    pub wal: f64,
    /// Whether all of it had reached whoever captures it a moment later.
    pub complete: bool,
}

/// What is to be run.
pub struct Plan {
    pub clients: Vec<u32>,
    pub rounds: u32,
    /// Of one run.
    pub seconds: u32,
}

/// Runs everything, the ways in turn, each round in another order.
pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Run> {
    let mut captures = Vec::new();
    for way in Way::ALL {
        captures.push(Capture::start(way, Inference::Held, texts).await);
    }
    let copy = std::env::temp_dir().join(format!("lantern-copy-{}.txt", std::process::id()));
    let rows: Vec<String> = (0..COPY)
        .map(|number| texts.text(number).replace(['\\', '\t'], " "))
        .collect();
    fs::write(&copy, rows.join("\n")).expect("the file for COPY");

    let mut runs = Vec::new();
    for statement in Statement::ALL {
        for &clients in &plan.clients {
            for round in 0..plan.rounds {
                let count = captures.len();
                for turn in 0..count {
                    let capture = &mut captures[(turn + round as usize) % count];
                    let script = statement.script(&copy.display().to_string());
                    let mut run = run(capture, statement, clients, &script, plan.seconds).await;
                    run.round = round;
                    runs.push(run);
                }
            }
        }
    }
    fs::remove_file(&copy).expect("it is ours");
    runs
}

async fn run(
    capture: &mut Capture,
    statement: Statement,
    clients: u32,
    script: &str,
    seconds: u32,
) -> Run {
    capture.begin_anew().await;
    // The table is as large for everybody, and no checkpoint comes in between.
    capture
        .place
        .sql(&format!("DELETE FROM notes WHERE id > {ROWS}"))
        .await;
    capture.place.sql("VACUUM notes").await;
    capture.place.sql("CHECKPOINT").await;
    let postmaster = postmaster(capture).await;
    let log = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    let log_before: f64 = capture.place.value(log).await;
    let children = cpu::children(postmaster);
    let before = (
        cpu::used_by_ended_children(postmaster),
        capture.used().await,
    );
    let folder = capture.place.folder.path();
    let done = pgbench::run(&capture.place.server, script, clients, seconds, folder);
    let complete = capture.has_all().await;
    // Their processor time counts from when they have ended.
    while cpu::children(postmaster) > children {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after = (
        cpu::used_by_ended_children(postmaster),
        capture.used().await,
    );
    let wal = capture.place.value::<f64>(log).await - log_before;
    let rows = (done.transactions * statement.rows()) as f64;
    let a_row =
        |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / rows;
    Run {
        statement,
        clients,
        way: capture.way,
        round: 0,
        tps: done.tps,
        p50: done.percentile(0.50),
        p95: done.percentile(0.95),
        p99: done.percentile(0.99),
        backend: a_row(before.0, after.0),
        outside: a_row(before.1[0], after.1[0]),
        walsender: a_row(before.1[1], after.1[1]),
        wal: wal / rows,
        complete,
    }
}

/// The parent of every process that works for the server.
async fn postmaster(capture: &Capture) -> u32 {
    let path = capture
        .place
        .server
        .data_directory()
        .join("data/postmaster.pid");
    let file = fs::read_to_string(path).expect("the server runs");
    let first = file.lines().next().expect("a line");
    first.parse().expect("a process id")
}
