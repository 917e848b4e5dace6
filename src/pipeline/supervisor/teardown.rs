//! The end of a job: its slot and publication go, and its part in shared ones, also when the target cannot be reached at first.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::jobs::JobRow;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::remove_member::remove_member;
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::names::MemberId;
use crate::postgres::{AllowedHosts, ConnectionString, Session};
use crate::replication::SlotName;

/// What a job may have on its target: slots and publications with these names. It has only one of them, but nobody knows how
/// the daemon was run before.
pub struct Names {
    pub own: SlotName,
    pub shared: SlotName,
}

const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Removes what the job left on its target, trying again for as long as the target is out of reach. True where there was
/// something to remove.
///
/// Returns early only for a target that can never be reached under this definition. Each attempt waits for one of `turns`.
///
/// Cancellation safe: each step can be repeated.
pub async fn run(row: &JobRow, names: &Names, allowed: &AllowedHosts, turns: &Semaphore) -> bool {
    let database = match target_database::from_definition(&row.definition, allowed) {
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
        let result = attempt(&database, names).await;
        drop(turn);
        match result {
            Ok(removed) => return removed,
            Err(error) if error.is_transient() => {
                tracing::warn!("cannot clean up yet, trying again: {error}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
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

async fn attempt(database: &ConnectionString, names: &Names) -> Result<bool, JobError> {
    let session = Session::open(database).await?;
    let own = drop_slot_and_publication(&session, &names.own).await?;
    let member = MemberId::from_slot(&names.own);
    let part = remove_member(&session, &names.shared, &member).await?;
    Ok(own || part)
}
