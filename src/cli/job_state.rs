//! What a person should know of a job before trusting its vectors: a command works whatever the state of the job is,
//! and its result does not show it.

use super::stderr;
use crate::jobs::{InitProgress, JobRow, JobStore};
use crate::postgres::DatabaseError;

/// Says on standard error where a job does not keep its vectors up to date, or not yet.
///
/// # Errors
/// The server's.
pub async fn warn(store: &JobStore, row: &JobRow) -> Result<(), DatabaseError> {
    if let Some(description) = description(store, row).await? {
        stderr::line(&format!("warning: job {} {description}", row.id));
    }
    Ok(())
}

/// The rest of a sentence that begins with the job: why its vectors are not all up to date. `None` for a job that has
/// finished its initial backfill and runs.
///
/// # Errors
/// The server's.
pub async fn description(store: &JobStore, row: &JobRow) -> Result<Option<String>, DatabaseError> {
    if !row.failed && !row.canceled && row.progress == InitProgress::Finished {
        return Ok(None);
    }
    let (reason, progress) = store.remarks(&row.id).await?;
    let done = progress.map_or_else(String::new, |percent| format!(" ({percent} % done)"));
    Ok(Some(match row.progress {
        _ if row.canceled => {
            "is canceled: rows that have changed since have a stale vector or none".into()
        }
        _ if row.failed => format!(
            "has failed, and no longer follows its table: {}; remove the cause, then start the job again: {}",
            reason
                .as_deref()
                .unwrap_or("no reason is given")
                .trim_end_matches(['.', ';']),
            store.restart_statement(&row.id)
        ),
        InitProgress::New => "has not started yet: a daemon with this jobs table starts it".into(),
        InitProgress::Started => {
            format!("has not finished its initial backfill{done}: rows are missing")
        }
        InitProgress::StartedAgain => format!(
            "is embedding rows again{done}, because changes may have been missed: vectors may be of older texts"
        ),
        InitProgress::Finished => return Ok(None),
    }))
}
