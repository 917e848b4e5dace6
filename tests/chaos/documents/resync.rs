//! `resync` beside the daemons: two writers of the same passages.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Error;

use super::SLOW_COMMAND;
use super::quiet_rows::{self, Edit};
use crate::faults::client;
use crate::testbed::Testbed;

/// A command that waits for a daemon is given up.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it runs in a row.
const RESYNCS: usize = 2;
/// It waits behind its first readings, longer than the daemons halt.
const READ_AND_WAIT: &str = "documents-read=3*sleep(800)";
/// How long daemons halt at most, until it has read.
const HALT: Duration = Duration::from_secs(3);
/// How long it waits for the job at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time for the daemon to write the passages of a few documents.
const TIME_TO_WRITE: Duration = Duration::from_millis(300);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Other faults may make the command fail, which is logged alone.
pub async fn run(testbed: &Testbed, all: bool, variables: &[(&str, &str)]) -> Result<(), Error> {
    let job = "SELECT min(id)::text FROM jobs";
    let job = client(testbed).await?.query_one(job, &[]).await?;
    if let Some(job) = job.get::<_, Option<String>>(0) {
        let mut arguments = vec!["resync", "--job", &job];
        arguments.extend(all.then_some("--all"));
        for _ in 0..RESYNCS {
            let run = testbed.config.run_with(variables, &arguments);
            let done = tokio::time::timeout(COMMAND_TIMEOUT, run).await;
            testbed.log(&format!("resync: {done:?}"));
        }
    }
    Ok(())
}

/// The daemons halt until the command has read documents that changed meanwhile, and go on while it waits to write. Each of
/// its writes takes a while.
pub async fn run_slowly(testbed: &Testbed, all: bool) -> Result<(), Error> {
    let _alone = testbed.at_passages.lock().await;
    let _ = tokio::time::timeout(PATIENCE, has_started(testbed)).await;
    let shape = &testbed.schedule.shape;
    let editor = client(testbed).await?;
    quiet_rows::edit(&editor, shape, Edit::Lengthen).await?;
    tokio::time::sleep(TIME_TO_WRITE).await;
    let signal_all = |signal| {
        let managers = testbed.managers.iter();
        managers.for_each(|manager| manager.signal(signal));
    };
    signal_all(Signal::SIGSTOP);
    // Both writers find the same text, and the vectors of its passages at other places.
    let shifted = quiet_rows::edit(&editor, shape, Edit::Shift).await;
    let go_on = async {
        let _ = tokio::time::timeout(HALT, has_read(testbed)).await;
        signal_all(Signal::SIGCONT);
        testbed.record.recoverable();
    };
    let variables = [("FAILPOINTS", READ_AND_WAIT), ("PGAPPNAME", SLOW_COMMAND)];
    let (done, ()) = tokio::join!(run(testbed, all, &variables), go_on);
    shifted.and(done)
}

/// Waits until existing rows have their passages: before that there is nothing to compare with.
async fn has_started(testbed: &Testbed) -> Result<(), Error> {
    let started =
        "SELECT bool_and(init_finished_at IS NOT NULL) FROM jobs WHERE chunk_table IS NOT NULL";
    wait_for(testbed, started).await
}

/// Waits until the command has read documents.
async fn has_read(testbed: &Testbed) -> Result<(), Error> {
    let has_read = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' \
         AND application_name LIKE '{SLOW_COMMAND}%' AND query LIKE '%totaled AS MATERIALIZED%')"
    );
    wait_for(testbed, &has_read).await
}

/// Waits until a query returns true, or the server cannot be asked.
async fn wait_for(testbed: &Testbed, query: &str) -> Result<(), Error> {
    let client = client(testbed).await?;
    while client
        .query_one(query, &[])
        .await?
        .get::<_, Option<bool>>(0)
        != Some(true)
    {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
