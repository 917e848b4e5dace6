//! Creating a slot, and telling the operator what it waits for.
//!
//! ```text
//! create ┬─ pg_create_logical_replication_slot ── waits for every open transaction ──▶ the slot
//!        └─ every 5 s: log and `waits_for` name those transactions; past the retention limit, drop the slot ──▶ error
//! ```

use std::time::Duration;

use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::blockers;
use crate::pipeline::slot::blockers::{Waiting, backend_pid};
use crate::pipeline::slot::catalog::create_logical_slot;
use crate::pipeline::slot::drop::drop_slot;
use crate::pipeline::slot::retention::{self, WatchedSlot};
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// How long a slot may take before the wait is reported, and how often the report is repeated.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A slot to create.
#[derive(Clone, Copy)]
pub struct NewSlot<'a> {
    /// Its name, its database and the limit that already holds while the slot is created.
    pub watched: &'a WatchedSlot,
    /// Where to report what the slot waits for.
    pub reporter: &'a Reporter,
}

/// Creates the slot. While that takes, the log and the job's row name the transactions that it waits for.
///
/// # Errors
/// The server's, and a transient one if the slot retains more WAL than its limit before it is ready.
///
/// Cancellation: as [`create_logical_slot`].
pub async fn create_slot(session: &Session, slot: &NewSlot<'_>) -> Result<(), JobError> {
    let creator = backend_pid(session).await?;
    let _clear = ClearReport(slot.reporter);
    tokio::select! {
        biased;
        created = create_logical_slot(session, &slot.watched.slot) => Ok(created?),
        error = report_wait(slot, creator) => Err(error),
    }
}

/// Clears `waits_for` in the job's row when the wait is over, also when the job is canceled during it.
struct ClearReport<'a>(&'a Reporter);

impl Drop for ClearReport<'_> {
    fn drop(&mut self) {
        self.0.waits_for(None);
    }
}

/// Reports the wait of the process `creator` until the slot may wait no longer; returns why.
async fn report_wait(slot: &NewSlot<'_>, creator: i32) -> JobError {
    let name = &slot.watched.slot;
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        let blockers = blockers(&slot.watched.database, creator)
            .await
            .unwrap_or_else(|error| format!("unknown, because {error}"));
        tracing::warn!(
            "the replication slot {name} waits for open transactions to end: {blockers}"
        );
        slot.reporter.waits_for(Some(blockers));
        if let Err(error) = enforce_limit(slot.watched).await {
            return error;
        }
    }
}

/// Drops the unfinished slot if it retains more WAL than its limit, and returns that as an error.
async fn enforce_limit(watched: &WatchedSlot) -> Result<(), JobError> {
    let Some(reason) = retention::unfinished_over_limit(watched).await? else {
        return Ok(());
    };
    // The session that creates the slot is busy with that. Dropping its future alone would leave the server waiting,
    // and the WAL retained.
    let other = Session::open(&watched.database).await?;
    drop_slot(&other, &watched.slot).await?;
    Err(JobError::Transient(reason))
}

async fn blockers(database: &ConnectionString, creator: i32) -> Result<String, DatabaseError> {
    let session = Session::open(database).await?;
    blockers::describe(&session, creator, Waiting::ForTransactions).await
}
