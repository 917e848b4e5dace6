//! `lantern-cli wait`

mod pending;
mod result;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use humantime::parse_duration;
use tokio::time::{Instant, timeout_at};

use super::job::JobArguments;
use super::progress::{Progress, ROWS};
use super::{json, stderr};
use crate::backoff::Backoff;
use crate::jobs::{JobId, JobRow, JobStore, presence};
use crate::pipeline::commands::wait::{Standing, WaitingFor};
use crate::pipeline::setup::preflight::server::is_standby;
use crate::pipeline::slot::committed_end::CommittedEnd;
use crate::postgres::{DatabaseError, Session};
pub use result::TIMED_OUT;
use result::WaitResult;

const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// How long after the timeout a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest timeout: further ones are as good as none.
const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Wait until everything that is committed now is embedded
///
/// That means each row that was committed before the call, also those that existed before the job. A row that could
/// not be embedded and is in the failures table counts as done. The command embeds nothing itself: a daemon has to run.
///
/// A role that cannot read the failures table, as behind a view, gets 0 also where rows are in it.
///
/// Exits with 0 if every row is embedded, with 3 if rows of the job are in the failures table, with 4 if not everything is
/// done within the timeout, and with 1 if the job has failed or is canceled, or on an error.
#[derive(Args)]
pub struct Wait {
    #[command(flatten)]
    job: JobArguments,

    /// How long to wait, such as 30s, 5m or 1h; 0s looks once
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_duration)]
    timeout: Duration,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Wait) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let (store, row) = arguments.job.find_row().await?;
    if row.failed || row.canceled {
        // Its target database may be what it has failed at.
        let standing = Standing::Ended(Box::new(row.clone()));
        let result = WaitResult::read(&store, &row, standing, None, None).await?;
        return arguments.tell(&result, began);
    }
    let target = arguments.job.open_target(&store, &row).await?;
    let connections = Connections { store, row, target };
    if is_standby(&connections.target).await? {
        bail!(
            "{} is a standby, and the replication slots of jobs are on the primary: name that one with --target",
            connections.target.server()
        );
    }
    let end = CommittedEnd::read(&connections.target).await?;
    let deadline = began + arguments.timeout.min(MAX_TIMEOUT);
    let progress = Progress::new(&format!("waiting for job {}", connections.row.id), ROWS);
    let result = wait(&arguments, connections, end, deadline).await?;
    drop(progress);
    arguments.tell(&result, began)
}

impl Wait {
    fn tell(&self, result: &WaitResult, began: Instant) -> anyhow::Result<ExitCode> {
        match self.json {
            true => json::print(&result.as_json(began.elapsed()))?,
            false => result.print(self.timeout)?,
        }
        Ok(result.exit_code())
    }
}

/// The sessions of the command.
struct Connections {
    store: JobStore,
    row: JobRow,
    target: Session,
}

impl Connections {
    async fn open(job: &JobArguments) -> anyhow::Result<Self> {
        let (store, row) = job.find_row().await?;
        let target = job.open_target(&store, &row).await?;
        Ok(Connections { store, row, target })
    }

    /// Until the deadline.
    async fn open_again(job: &JobArguments, deadline: Instant) -> Option<Self> {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        while Instant::now() < deadline {
            backoff.wait().await;
            if let Ok(opened) = Connections::open(job).await {
                return Some(opened);
            }
        }
        None
    }
}

/// Waits, also while a server is away.
async fn wait(
    arguments: &Wait,
    mut connections: Connections,
    mut end: CommittedEnd,
    deadline: Instant,
) -> anyhow::Result<WaitResult> {
    let mut has_told = false;
    loop {
        let attempt = attempt(&connections, &mut end, deadline, &mut has_told);
        let waited = timeout_at(deadline + ANSWER_TIMEOUT, attempt).await;
        let Connections { store, row, target } = &connections;
        let error = match waited {
            Ok(Ok(standing)) => {
                let end = Some(end);
                return WaitResult::read(store, row, standing, end, Some(target)).await;
            }
            Ok(Err(error)) if error.is_transient() => error,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => DatabaseError::NoAnswer {
                database: target.server().to_string(),
                patience: ANSWER_TIMEOUT,
            },
        };
        connections = match Connections::open_again(&arguments.job, deadline).await {
            Some(opened) => opened,
            None => return Ok(WaitResult::of_outage(store, row, &error, end)),
        };
    }
}

async fn attempt(
    connections: &Connections,
    end: &mut CommittedEnd,
    deadline: Instant,
    has_told: &mut bool,
) -> Result<Standing, DatabaseError> {
    let Connections { store, row, target } = connections;
    let waiting = WaitingFor {
        store,
        job: &row.id,
        target,
    };
    let standing = waiting.look(end).await?;
    if !matches!(standing, Standing::Pending(_)) {
        return Ok(standing);
    }
    if !std::mem::replace(has_told, true) {
        tell_what_is_waited_for(store, &row.id).await?;
    }
    waiting.wait(end, deadline).await
}

/// Once, while there is still time to do something about it.
async fn tell_what_is_waited_for(store: &JobStore, job: &JobId) -> Result<(), DatabaseError> {
    if presence::is_any_there(store).await? == Some(false) {
        stderr::line(&format!(
            "warning: no daemon works on {}: start one with lantern-cli start-daemon; waiting until then",
            store.table().qualified()
        ));
    } else if let Some(cause) = pending::cause(&store.remarks_on(job).await?) {
        stderr::line(&format!("warning: job {job}: {cause}; waiting"));
    }
    Ok(())
}
