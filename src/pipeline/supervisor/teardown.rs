//! Removes what an ended job left on its target server: its slot and publication, or its part in shared ones.
//!
//! ```text
//! attempt ──▶ removed, or nothing there ──▶ done
//!    │
//!    ├─ transient error ──▶ pause, next attempt, for as long as it takes
//!    └─ permanent error ──▶ log what may be left behind; done
//! ```

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::jobs::definition::JobRow;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::remove_member::remove_member;
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::names::{JobNames, MemberId};
use crate::postgres::{AllowedHosts, ConnectionString, Session};

/// The shortest and the longest pause between attempts.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// A server that accepts a session and then does not answer must not keep other teardowns waiting for their turn. An
/// attempt on a server that answers takes less: its longest part is DDL that waits for a lock, and gives up after about
/// 40 s.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(120);

/// Removes what the job left on its target; returns whether there was anything. Retries for as long as the target
/// cannot be reached. Each attempt waits for one of `turns`.
///
/// Returns false too, with a line in the log, if another attempt cannot succeed.
///
/// Cancellation safe: each step can be repeated.
pub async fn run(
    row: &JobRow,
    names: &JobNames,
    allowed: &AllowedHosts,
    turns: &Semaphore,
) -> bool {
    let database = match target_database::from_definition(&row.definition, allowed) {
        Ok(database) => database,
        Err(error @ JobError::Host(_)) => {
            tracing::warn!("not cleaned up: {error}");
            return false;
        }
        // With an invalid connection string the job has never connected, so it has left nothing.
        Err(_) => return false,
    };
    let database = database.named(&format!("job {} ending", row.id));
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    loop {
        let turn = turns.acquire().await;
        let result = attempt_in_time(&database, names).await;
        drop(turn);
        match result {
            Ok(removed) => return removed,
            Err(error) if error.is_transient() => {
                tracing::warn!("cannot clean up yet, trying again: {error}");
                backoff.wait().await;
            }
            Err(error) => {
                tracing::error!(
                    "slot and publication {} may be left behind: {error}",
                    names.own
                );
                return false;
            }
        }
    }
}

async fn attempt_in_time(database: &ConnectionString, names: &JobNames) -> Result<bool, JobError> {
    timeout(ATTEMPT_TIMEOUT, attempt(database, names))
        .await
        .unwrap_or_else(|_| {
            Err(JobError::Transient(format!(
                "{database} did not answer within {} s",
                ATTEMPT_TIMEOUT.as_secs()
            )))
        })
}

async fn attempt(database: &ConnectionString, names: &JobNames) -> Result<bool, JobError> {
    let session = Session::open(database).await?;
    let own = drop_slot_and_publication(&session, &names.own).await?;
    let member = MemberId::from_slot(&names.own);
    let shared = remove_member(&session, &names.shared, &member).await?;
    Ok(own || shared)
}
