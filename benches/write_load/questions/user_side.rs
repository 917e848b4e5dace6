//! What does it cost the users of a database that its changes are captured? Transactions a second, their latency, and
//! the processor time of their own server processes.

use std::fs;
use std::time::Duration;

use serde::Serialize;
use testkit::procfs;

use crate::capture::{Capture, Inference, Made, Way};
use crate::notes_server::ROWS;
use crate::pgbench::{self, Length, Load, Speed};
use crate::texts::Texts;

/// What users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    Insert,
    UpdateText,
    UpdateOther,
    BulkInsert,
    Copy,
    /// Rows come, change and go, a third each. Played by the question `documents`, whose publication has all of that.
    Mix,
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
            Statement::Mix => "INSERT, UPDATE, DELETE",
        }
    }

    pub fn is_bulk(self) -> bool {
        self.rows() > 1
    }

    fn rows(self) -> usize {
        match self {
            Statement::BulkInsert => BULK,
            Statement::Copy => COPY,
            _ => 1,
        }
    }

    /// For pgbench; `copy` is the file that COPY reads.
    fn scripts(self, copy: &str) -> Vec<String> {
        let last = ROWS - BULK;
        let script = match self {
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
            Statement::Mix => return mix(),
        };
        vec![script]
    }
}

/// Rows are deleted in the order of their keys, the oldest first, and those are changed that come behind: each statement
/// finds its row.
fn mix() -> Vec<String> {
    let insert = Statement::Insert.scripts("");
    let half = ROWS / 2;
    let update = format!(
        "\\set n random(1, {ROWS})\n\\set ahead random({half}, {ROWS})\n\
         UPDATE notes SET body = (SELECT body FROM texts WHERE n = :n) WHERE id = (SELECT last_value FROM oldest) + :ahead;\n"
    );
    let delete = "DELETE FROM notes WHERE id = (SELECT nextval('oldest'));\n";
    [insert, vec![update, delete.to_owned()]].concat()
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub statement: Statement,
    pub clients: u32,
    pub way: Way,
    pub round: u32,
    #[serde(flatten)]
    pub speed: Speed,
    /// Microseconds of processor time a row: in the users' own server processes, in the server's processes that work
    /// for the capture, and outside of the server.
    pub backend: f64,
    pub serving: f64,
    pub outside: f64,
    /// Seconds from the end of the run until all of it was captured.
    pub behind: f64,
}

/// Bytes of WAL a row, without page images.
#[derive(Clone, Debug, Serialize)]
pub struct Wal {
    pub statement: Statement,
    pub way: Way,
    pub bytes: f64,
}

#[derive(Serialize)]
pub struct UserSide {
    pub runs: Vec<Run>,
    pub wal: Vec<Wal>,
}

/// How much to run.
pub struct Plan {
    pub clients: Vec<u32>,
    /// With statements of many rows.
    pub bulk_clients: Vec<u32>,
    pub rounds: u32,
    /// Of the triggers, which differ from the others by more than runs do.
    pub trigger_rounds: u32,
    /// Of one run.
    pub seconds: u32,
}

/// The mix of statements, with a job that makes passages.
pub async fn measure_mix(plan: &Plan, texts: &Texts) -> Vec<Run> {
    let mut captures = Vec::new();
    for way in [Way::Nothing, Way::Recvlogical, Way::Daemon] {
        captures.push(Capture::start_for(Made::Passages, way, Inference::Off, texts).await);
    }
    in_turns(&captures, Statement::Mix, &mix(), plan).await
}

/// Runs everything, the ways in turn, each round in another order.
pub async fn measure(plan: &Plan, texts: &Texts) -> UserSide {
    let mut captures = Vec::new();
    for way in Way::ALL {
        captures.push(Capture::start(way, Inference::Off, texts).await);
    }
    let copy = std::env::temp_dir().join(format!("lantern-copy-{}.txt", std::process::id()));
    let rows: Vec<String> = (0..COPY)
        .map(|number| texts.text(number).replace(['\\', '\t'], " "))
        .collect();
    fs::write(&copy, rows.join("\n")).expect("the file for COPY");

    let mut answer = UserSide {
        runs: Vec::new(),
        wal: Vec::new(),
    };
    for statement in Statement::ALL {
        let scripts = statement.scripts(&copy.display().to_string());
        for capture in &captures {
            answer.wal.push(wal(capture, statement, &scripts).await);
        }
        answer
            .runs
            .extend(in_turns(&captures, statement, &scripts, plan).await);
    }
    fs::remove_file(&copy).expect("it is ours");
    answer
}

/// All ways with one statement, for each number of clients.
async fn in_turns(
    captures: &[Capture],
    statement: Statement,
    scripts: &[String],
    plan: &Plan,
) -> Vec<Run> {
    let clients = match statement.is_bulk() {
        true => &plan.bulk_clients,
        false => &plan.clients,
    };
    let mut runs = Vec::new();
    for &clients in clients {
        for round in 0..plan.rounds {
            let has_turn = |capture: &&Capture| {
                let is_trigger = matches!(capture.way, Way::Notify | Way::Queue);
                !is_trigger || round < plan.trigger_rounds
            };
            let captures: Vec<&Capture> = captures.iter().filter(has_turn).collect();
            let count = captures.len();
            for turn in 0..count {
                let capture = captures[(turn + round as usize) % count];
                let mut run = run(capture, statement, clients, scripts, plan.seconds).await;
                run.round = round;
                runs.push(run);
            }
        }
    }
    runs
}

async fn run(
    capture: &Capture,
    statement: Statement,
    clients: u32,
    scripts: &[String],
    seconds: u32,
) -> Run {
    let server = &capture.server;
    clear(capture, statement).await;
    // No checkpoint comes in between.
    server.sql("CHECKPOINT").await;
    capture.caught_up().await;
    let postmaster = server.postmaster().await;
    let children = procfs::children(postmaster).len();
    let backend = procfs::cpu_time_of_ended_children(postmaster);
    let serving = capture.cpu_time_serving().await;
    let outside = capture.cpu_time_outside();
    let length = Length::Seconds(seconds);
    let load = Load::clients(clients);
    let done = pgbench::run(server, scripts, load, length, server.folder.path());
    let behind = capture.caught_up().await;
    // The kernel adds up their processor time when they have ended.
    while procfs::children(postmaster).len() > children {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rows = (done.transactions * statement.rows()) as f64;
    let a_row =
        |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / rows;
    Run {
        statement,
        clients,
        way: capture.way,
        round: 0,
        speed: done.speed,
        backend: a_row(backend, procfs::cpu_time_of_ended_children(postmaster)),
        serving: a_row(serving, capture.cpu_time_serving().await),
        outside: a_row(outside, capture.cpu_time_outside()),
        behind: behind.as_secs_f64(),
    }
}

/// Makes the table as large as it was before the first run.
async fn clear(capture: &Capture, statement: Statement) {
    let server = &capture.server;
    let clear = match statement {
        Statement::Mix => {
            "TRUNCATE notes RESTART IDENTITY; INSERT INTO notes (body) SELECT body FROM texts ORDER BY n; \
             DROP SEQUENCE IF EXISTS oldest; CREATE SEQUENCE oldest"
        }
        _ => &format!("DELETE FROM notes WHERE id > {ROWS}"),
    };
    server.sql(clear).await;
    server.sql("VACUUM notes").await;
}

/// Runs the statement twice without a checkpoint in between: the second time finds pages whose images are in the WAL
/// already.
async fn wal(capture: &Capture, statement: Statement, scripts: &[String]) -> Wal {
    let server = &capture.server;
    let transactions: u32 = if statement.is_bulk() { 20 } else { 2000 };
    clear(capture, statement).await;
    let mut bytes = 0.0;
    for _ in 0..2 {
        let position = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        let before: f64 = server.value(position).await;
        let length = Length::Transactions(transactions);
        pgbench::run(
            server,
            scripts,
            Load::clients(1),
            length,
            server.folder.path(),
        );
        bytes = server.value::<f64>(position).await - before;
    }
    Wal {
        statement,
        way: capture.way,
        bytes: bytes / (transactions as usize * statement.rows()) as f64,
    }
}
