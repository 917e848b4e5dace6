//! One schedule from its beginning to its verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::record::Statements;
use super::schedule::{Loss, Schedule};
use super::server::Server;
use super::stage::Stage;
use super::workload::User;
use super::{faults, judge, monitor};

/// What came of a schedule.
pub struct Outcome {
    pub schedule: Schedule,
    pub violations: Vec<String>,
    pub statements: Statements,
    pub recoveries: Vec<Duration>,
    pub take_over: Option<(Loss, Duration)>,
    pub took: Duration,
    /// Logs, kept where there was a violation.
    pub logs: PathBuf,
}

/// Plays a schedule on a lane's server. Logs go to a folder of their own below `logs`.
pub async fn play(
    server: Arc<Mutex<Server>>,
    schedule: Schedule,
    data_path: &Path,
    logs: &Path,
) -> Outcome {
    let began = Instant::now();
    let logs = logs.join(schedule.seed.to_string());
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs).expect("a folder for logs");
    let server_log = server.lock().await.log();

    let stage = Arc::new(Stage::set(server, schedule.clone(), data_path, &logs).await);
    let monitor = tokio::spawn(monitor::watch(
        stage.direct.clone(),
        Arc::clone(&stage.record),
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let mut users = start_users(&stage, &stop);
    let faults = tokio::spawn(faults::run(Arc::clone(&stage)));
    tokio::time::sleep_until((stage.began + schedule.duration).into()).await;
    stop.store(true, Ordering::SeqCst);
    while users.join_next().await.is_some() {}
    faults.await.expect("faults do not panic");

    heal(&stage).await;
    judge::judge(&stage).await;
    monitor.abort();
    let outcome = Outcome {
        schedule,
        violations: stage.record.violations(),
        statements: stage.record.statements(),
        recoveries: stage.record.recoveries(),
        take_over: stage.record.take_over(),
        took: began.elapsed(),
        logs,
    };
    if outcome.violations.is_empty() {
        let _ = fs::remove_dir_all(&outcome.logs);
    } else {
        let _ = keep(&server_log, &outcome);
    }
    if let Some(stage) = Arc::into_inner(stage) {
        stage.strike().await;
    }
    outcome
}

fn start_users(stage: &Stage, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut dice = stage.schedule.dice.clone();
    let mut users = JoinSet::new();
    for number in 0..stage.schedule.clients {
        let user = User {
            number,
            uri: stage.direct.clone(),
            shape: stage.schedule.shape.clone(),
            dice: dice.fork(),
            record: Arc::clone(&stage.record),
            stop: Arc::clone(stop),
        };
        users.spawn(user.run());
    }
    users
}

/// Everything is there and as it should be again; the daemon has to find that out by itself.
async fn heal(stage: &Stage) {
    stage.say("all is well again");
    stage.record.disturbed();
    for (number, keeper) in stage.keepers.iter().enumerate() {
        stage.proxy.network(number).heal();
        keeper.disarm();
    }
    let client = stage.client().await;
    let settled = settle(stage, &client).await;
    settled.expect("a healthy server answers");
    stage.record.returned();
}

/// Undoes what a fault was kept from undoing by another one.
async fn settle(stage: &Stage, client: &Client) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        .await?;
    client.batch_execute("SELECT pg_reload_conf()").await?;
    if client.query("SELECT FROM jobs", &[]).await?.is_empty() {
        stage.insert_jobs(client).await?;
    }
    client
        .batch_execute("UPDATE jobs SET canceled_at = NULL WHERE canceled_at")
        .await
}

fn keep(server_log: &Path, outcome: &Outcome) -> io::Result<()> {
    fs::copy(server_log, outcome.logs.join("server.log"))?;
    fs::write(
        outcome.logs.join("verdict.txt"),
        format!("{}{}\n", outcome.schedule, outcome.violations.join("\n")),
    )
}
