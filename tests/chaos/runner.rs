//! Runs one schedule, from the empty testbed to the checks.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use testkit::tiny_model::TinyModel;
use testkit::{Program, RestartableServer};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::Client;

use super::record::Statements;
use super::role;
use super::schedule::{Fault, Loss, Schedule};
use super::testbed::Testbed;
use super::workload::User;
use super::{checks, documents, engine, faults, monitor};

/// The result of a schedule.
pub struct Outcome {
    pub schedule: Schedule,
    pub violations: Vec<String>,
    pub statements: Statements,
    /// How often the reader of passages has looked.
    pub looks: u64,
    pub recoveries: Vec<Duration>,
    pub take_over: Option<(Loss, Duration)>,
    pub took: Duration,
    /// Logs, kept where there was a violation.
    pub logs: PathBuf,
}

/// Runs a schedule on a lane's server. Logs go to a folder of their own below `logs`.
pub async fn run(
    server: Arc<Mutex<RestartableServer>>,
    schedule: Schedule,
    program: Program,
    logs: &Path,
) -> Outcome {
    let began = Instant::now();
    let logs = logs.join(schedule.seed.to_string());
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs).expect("a folder for logs");

    let testbed = Arc::new(Testbed::prepare(server, schedule.clone(), program, &logs).await);
    let monitor = tokio::spawn(monitor::watch(
        testbed.direct.clone(),
        Arc::clone(&testbed.record),
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let mut users = start_users(&testbed, &stop);
    let faults = tokio::spawn(faults::run(Arc::clone(&testbed)));
    let engine = tokio::spawn(engine::run(Arc::clone(&testbed)));
    let is_right = Arc::new(AtomicBool::new(false));
    let reader = start_reader(&testbed, &is_right);
    tokio::time::sleep_until((testbed.began + schedule.duration).into()).await;
    stop.store(true, Ordering::SeqCst);
    while users.join_next().await.is_some() {}
    faults.await.expect("faults do not panic");
    engine.await.expect("faults of the servers do not panic");

    heal(&testbed).await;
    checks::check(&testbed).await;
    monitor.abort();
    is_right.store(true, Ordering::SeqCst);
    if let Some(reader) = reader {
        reader.await.expect("the reader does not panic");
    }
    let outcome = Outcome {
        schedule,
        violations: testbed.record.violations(),
        statements: testbed.record.statements(),
        looks: testbed.record.looks(),
        recoveries: testbed.record.recoveries(),
        take_over: testbed.record.take_over(),
        took: began.elapsed(),
        logs,
    };
    if let Some(testbed) = Arc::into_inner(testbed) {
        testbed.remove().await;
    }
    outcome
}

fn start_users(testbed: &Testbed, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut random = testbed.schedule.random.clone();
    let mut users = JoinSet::new();
    for number in 0..testbed.schedule.clients {
        let user = User {
            number,
            uri: testbed.direct.clone(),
            shape: testbed.schedule.shape.clone(),
            has_documents: testbed.schedule.documents.is_some(),
            truncates: testbed
                .schedule
                .documents
                .as_ref()
                .is_some_and(|documents| documents.users_truncate),
            random: random.fork(),
            record: Arc::clone(&testbed.record),
            stop: Arc::clone(stop),
        };
        users.spawn(user.run());
    }
    users
}

/// Reads passages until told to stop, where there are some.
fn start_reader(testbed: &Testbed, stop: &Arc<AtomicBool>) -> Option<JoinHandle<()>> {
    let documents = testbed.schedule.documents.clone()?;
    let has = |fault| {
        let mut faults = testbed.schedule.faults.iter();
        faults.any(|incident| incident.fault == fault)
    };
    let mut cuttings = vec![documents.cutting.clone()];
    cuttings.extend(has(Fault::ChangeCutting).then(|| documents.other_cutting.clone()));
    let mut models = vec![TinyModel::One];
    models.extend(has(Fault::ChangeModel).then_some(TinyModel::Two));
    let reader = documents::reader::Reader {
        uri: testbed.direct.clone(),
        shape: testbed.schedule.shape.clone(),
        documents,
        cuttings,
        models,
        record: Arc::clone(&testbed.record),
        stop: Arc::clone(stop),
    };
    Some(tokio::spawn(reader.run()))
}

/// Ends all faults. The daemons have to notice by themselves.
async fn heal(testbed: &Testbed) {
    testbed.log("all faults are over");
    testbed.record.disturbed();
    for (number, manager) in testbed.managers.iter().enumerate() {
        testbed.proxy.network(number).heal();
        manager.disarm();
    }
    let client = testbed.client().await;
    let restored = restore_jobs(testbed, &client).await;
    restored.expect("a healthy server answers");
    testbed.record.recoverable();
}

/// Undoes what a fault could not undo because of another one.
async fn restore_jobs(testbed: &Testbed, client: &Client) -> Result<(), tokio_postgres::Error> {
    client
        .batch_execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        .await?;
    for statement in faults::NO_STANDBY {
        client.batch_execute(statement).await?;
    }
    if client.query("SELECT FROM jobs", &[]).await?.is_empty() {
        testbed.insert_jobs(client).await?;
    }
    if testbed.schedule.has_role {
        client.batch_execute(role::ADMIT).await?;
        client.batch_execute(role::SHOW_ROWS).await?;
    }
    client
        .batch_execute("UPDATE jobs SET canceled_at = NULL WHERE canceled_at")
        .await
}

/// Removes the logs of a schedule, or completes them: they are kept where there was a violation, or always.
pub async fn tidy(
    server: &Mutex<RestartableServer>,
    outcome: &Outcome,
    keeps_all: bool,
) -> io::Result<()> {
    if outcome.violations.is_empty() && !keeps_all {
        return fs::remove_dir_all(&outcome.logs);
    }
    fs::copy(server.lock().await.log(), outcome.logs.join("server.log"))?;
    fs::write(
        outcome.logs.join("violations.txt"),
        format!("{}{}\n", outcome.schedule, outcome.violations.join("\n")),
    )
}
