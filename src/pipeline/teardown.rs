//! The end of a job: its slot and publication go, also when the target cannot be reached at first.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::jobs::{Definition, JobRow};
use crate::postgres::{ConnectionString, Session};
use crate::replication::SlotName;

use super::error::JobError;
use super::provision;

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Removes what the job left on its target, trying again for as long as the target is out of reach.
///
/// Returns early only for a target that can never be reached under this definition. Each attempt waits for one of `turns`.
///
/// Cancellation safe: each step can be repeated.
pub async fn run(row: &JobRow, name: &SlotName, turns: &Semaphore) {
    let mut pause = Duration::from_millis(250);
    loop {
        let turn = turns.acquire().await;
        let result = attempt(&row.definition, name).await;
        drop(turn);
        match result {
            Ok(()) => return,
            Err(error) if error.is_transient() => {
                tracing::warn!("cannot clean up yet, trying again: {error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                tracing::error!("slot and publication {name} may be left behind: {error}");
                return;
            }
        }
    }
}

/// One attempt.
pub async fn attempt(definition: &Definition, name: &SlotName) -> Result<(), JobError> {
    let database: ConnectionString = definition.db_connection.parse()?;
    let session = Session::open(&database).await?;
    provision::remove(&session, name).await
}
