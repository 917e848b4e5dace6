//! What do more jobs on one database cost its users? The same writes, to a database with 1, 10 or 50 jobs, with a slot
//! for each job and with one for all: all to the table of one job, and spread over the tables of all.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use testkit::engine::MODEL;
use testkit::procfs;

use crate::notes_server::{ROWS, SETTINGS, load_texts};
use crate::pgbench::{self, Length, Load};
use crate::support::WITHOUT_INFERENCE;
use crate::support::server::Server;
use crate::support::stage::Stage;
use crate::texts::Texts;

/// How much to run.
pub struct Plan {
    pub rounds: u32,
    /// Of one run.
    pub seconds: u32,
}

/// What has a replication slot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slots {
    /// No daemon runs: this is what the number of tables alone costs.
    #[serde(rename = "nobody")]
    None,
    Job,
    Database,
}

impl Slots {
    pub const ALL: [Slots; 3] = [Slots::None, Slots::Job, Slots::Database];

    pub fn name(self) -> &'static str {
        match self {
            Slots::None => "none",
            Slots::Job => "job",
            Slots::Database => "database",
        }
    }
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub slots: Slots,
    pub jobs: u32,
    /// Into how many of the jobs' tables it writes.
    pub tables: u32,
    pub round: u32,
    /// Transactions a second, each an INSERT of one row.
    pub tps: f64,
    /// Microseconds of processor time a row: of all walsenders together, and of the daemon.
    pub walsenders: f64,
    pub daemon: f64,
    /// Seconds from the end of the run until all walsenders had sent everything.
    pub behind: f64,
}

pub const JOBS: [u32; 3] = [1, 10, 50];
const CLIENTS: u32 = 8;
/// Jobs have started and the caches of their sessions are warm after this.
const SETTLING: Duration = Duration::from_secs(4);

pub async fn measure(plan: &Plan, texts: &Texts) -> Vec<Run> {
    let mut stages = Vec::new();
    for slots in Slots::ALL {
        for jobs in JOBS {
            stages.push((slots, jobs, stage(jobs, texts).await));
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut runs = Vec::new();
    for round in 0..plan.rounds {
        let count = stages.len();
        for turn in 0..count {
            let (slots, jobs, stage) = &mut stages[(turn + round as usize) % count];
            // The others must cost nothing meanwhile.
            if *slots != Slots::None {
                stage.spawn_daemon(&[("LANTERN_SLOTS", slots.name()), WITHOUT_INFERENCE]);
                wait_for_streams(stage, *slots, *jobs).await;
            }
            let mut tables = vec![1, *jobs];
            tables.dedup();
            for tables in tables {
                let mut run = run(stage, tables, plan.seconds, folder.path()).await;
                (run.slots, run.jobs, run.round) = (*slots, *jobs, round);
                runs.push(run);
            }
            stage.stop_daemon();
        }
    }
    runs
}

async fn stage(jobs: u32, texts: &Texts) -> Stage {
    let stage = Stage::on(Server::durable(&SETTINGS).await).await;
    load_texts(&stage.server, &texts.first(ROWS)).await;
    for job in 1..=jobs {
        stage
            .sql(&format!(
                "CREATE TABLE t{job} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, embedding vector(384))"
            ))
            .await;
        let table = format!("t{job}");
        stage.server.job_without_backfill(&table, MODEL).await;
    }
    stage.sql("VACUUM ANALYZE").await;
    stage
}

/// Waits until all jobs stream.
async fn wait_for_streams(stage: &Stage, slots: Slots, jobs: u32) {
    stage.wait_for_backfill().await;
    let streams = match slots {
        Slots::Database => 1,
        _ => jobs,
    };
    stage
        .until_none(&format!(
            "SELECT {streams} - count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        ))
        .await;
    tokio::time::sleep(SETTLING).await;
}

async fn run(stage: &Stage, tables: u32, seconds: u32, folder: &Path) -> Run {
    let server = &stage.server;
    stage.sql("CHECKPOINT").await;
    server.wait_until_sent().await;
    let scripts: Vec<String> = (1..=tables)
        .map(|job| {
            format!("\\set n random(1, {ROWS})\nINSERT INTO t{job} (body) SELECT body FROM texts WHERE n = :n;\n")
        })
        .collect();
    let walsenders = server.cpu_time_of_walsenders().await;
    let used = || {
        let daemon = stage.running_daemon();
        daemon.map_or(Duration::ZERO, |daemon| procfs::cpu_time(daemon.id()))
    };
    let daemon = used();
    let length = Length::Seconds(seconds);
    let done = pgbench::run(server, &scripts, Load::clients(CLIENTS), length, folder);
    let behind = server.wait_until_sent().await;
    let a_row = |before: Duration, after: Duration| {
        after.saturating_sub(before).as_secs_f64() * 1e6 / done.transactions as f64
    };
    Run {
        slots: Slots::None,
        jobs: 0,
        tables,
        round: 0,
        tps: done.speed.tps,
        walsenders: a_row(walsenders, server.cpu_time_of_walsenders().await),
        daemon: a_row(daemon, used()),
        behind: behind.as_secs_f64(),
    }
}
