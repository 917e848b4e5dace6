//! The end of a job: its slot and publication go, also when the target cannot be reached at first.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::jobs::JobRow;
use crate::postgres::{AllowedHosts, ConnectionString, Session};
use crate::replication::SlotName;

use super::error::JobError;
use super::{provision, target_database};

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Removes what the job left on its target, trying again for as long as the target is out of reach. True where there was
/// something to remove.
///
/// Returns early only for a target that can never be reached under this definition. Each attempt waits for one of `turns`.
///
/// Cancellation safe: each step can be repeated.
pub async fn run(row: &JobRow, name: &SlotName, allowed: &AllowedHosts, turns: &Semaphore) -> bool {
    let database = match target_database::of(&row.definition, allowed) {
        Ok(database) => database,
        Err(error @ JobError::Host(_)) => {
            tracing::warn!("not cleaned up: {error}");
            return false;
        }
        // Under a connection string that says nothing, nothing was ever created.
        Err(_) => return false,
    };
    let database = database.named(&format!("job {} ending", row.id));
    let mut pause = Duration::from_millis(250);
    loop {
        let turn = turns.acquire().await;
        let result = attempt(&database, name).await;
        drop(turn);
        match result {
            Ok(removed) => return removed,
            Err(error) if error.is_transient() => {
                tracing::warn!("cannot clean up yet, trying again: {error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                tracing::error!("slot and publication {name} may be left behind: {error}");
                return false;
            }
        }
    }
}

async fn attempt(database: &ConnectionString, name: &SlotName) -> Result<bool, JobError> {
    let session = Session::open(database).await?;
    provision::remove(&session, name).await
}
