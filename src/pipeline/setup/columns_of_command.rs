//! A command that embeds a table without a job is the only one that writes its columns, as a job is
//! ([`written_columns`](super::written_columns)).
//!
//! The command holds the same advisory locks, so a job that starts meanwhile waits for its end. Where a job holds
//! them, the command leaves the table to it.

use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::error::JobError;
use crate::pipeline::setup::written_columns::{is_command, may_write, written};
use crate::pipeline::slot::session_locks::{self, Holder, try_lock};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::Session;
use crate::postgres::quote::identifier;

/// How long the session of a command that was killed may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a lock is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Makes `session` the only one that writes the columns of this table, for as long as it lives.
///
/// # Errors
/// Permanent where a job writes one of them, or another command does for longer than a killed one would; and the
/// server's.
///
/// Cancellation: the session may or may not hold the locks, so drop it as well.
pub async fn acquire(session: &Session, target: &TargetTable) -> Result<(), JobError> {
    let deadline = Instant::now() + END_TIMEOUT;
    for (column, key) in written(session, target).await? {
        while !try_lock(session, key).await? {
            let holders = session_locks::holders(session, &[key]).await?;
            // Where there is none, it has just ended.
            if !holders.is_empty() {
                let Some(holder) = first_writer(session, target, &column, holders).await? else {
                    break;
                };
                if !is_command(&holder) || Instant::now() > deadline {
                    return Err(refusal(target, &column, &holder));
                }
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
    Ok(())
}

/// The first of these sessions whose role may write the column. Any other one is neither a job nor a command.
async fn first_writer(
    session: &Session,
    target: &TargetTable,
    column: &str,
    holders: Vec<Holder>,
) -> Result<Option<Holder>, JobError> {
    for holder in holders {
        if may_write(session, &holder, target, column).await? {
            return Ok(Some(holder));
        }
    }
    Ok(None)
}

fn refusal(target: &TargetTable, column: &str, holder: &Holder) -> JobError {
    let column = format!("{}.{}", target.written().qualified(), identifier(column));
    let pid = holder.pid;
    if is_command(holder) {
        return JobError::permanent(format!(
            "{column} is written by another lantern-cli embed-table (process {pid} of the server); wait until it has ended, \
             or run: SELECT pg_terminate_backend({pid});"
        ));
    }
    let name = holder.application.strip_prefix("lantern-cli: job ");
    let id = name.and_then(|name| name.strip_suffix(" write-back"));
    let (job, resync) = match id {
        Some(id) => (
            format!("job {id}"),
            format!("lantern-cli resync --job {id}"),
        ),
        None => (
            format!("a job (process {pid} of the server)"),
            "lantern-cli resync".to_owned(),
        ),
    };
    JobError::permanent(format!(
        "{column} is kept up to date by {job} of a daemon, so there is nothing to embed by hand; {resync} embeds what \
         is missing, or name another --dst-column"
    ))
}
