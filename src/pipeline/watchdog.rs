//! Keeps a publication from harming its table's owner.
//!
//! A table that is published with its updates must have a replica identity, or each UPDATE of it fails. Nothing stops a
//! user from dropping the key while a job runs, so it is looked at again and again; once it is gone, the job ends and its
//! publication with it.
//!
//! The publication itself is watched too. Servers from 18 on leave out what a missing one would have published, without an
//! error; then the job starts over and embeds every row again.
//!
//! So are the partitions: one that is attached brings rows that no change has brought.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::postgres::{DatabaseError, Session};

use super::error::JobError;
use super::partitions::Partitions;
use super::preflight::{TableState, table_state};
use super::subscription::Subscription;
use super::target::TargetTable;

const EVERY: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Clone, Copy)]
pub struct Watched<'a> {
    pub target: &'a TargetTable,
    pub publication: &'a str,
    pub subscription: &'a Subscription,
    pub partitions: &'a Partitions,
}

/// Returns when the table cannot or is not published any more, or has got a partition with rows in it, or its database cannot be asked. Shares the session of the
/// write-backs: a question that falls into an aborted transaction is asked again the next time.
///
/// Cancellation safe.
pub async fn watch(session: Arc<Session>, watched: Watched<'_>) -> JobError {
    loop {
        tokio::time::sleep(EVERY).await;
        match look(&session, watched).await {
            Ok(None) => {}
            Ok(Some(error)) => return error,
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
    }
}

async fn look(session: &Session, watched: Watched<'_>) -> Result<Option<JobError>, DatabaseError> {
    let Watched {
        target,
        publication,
        subscription,
        partitions,
    } = watched;
    match table_state(session, target).await? {
        TableState::Intact => {}
        TableState::Lost => return Ok(Some(JobError::Harmful(lost_identity(target)))),
        TableState::Retyped => {
            return Ok(Some(JobError::Transient(format!(
                "key or destination of {} have other types now; the table is looked at anew",
                target.qualified()
            ))));
        }
    }
    if let Some(defect) = subscription.defect(session, publication, target).await? {
        let reason = format!("the publication {publication} {defect}");
        return Ok(Some(JobError::Transient(reason)));
    }
    let attached = partitions
        .attached(session, target, subscription.slot())
        .await?;
    Ok(attached.map(|name| {
        JobError::Transient(format!("the partition {name} was attached with rows in it"))
    }))
}

/// What a person is told when the key is gone.
pub fn lost_identity(target: &TargetTable) -> String {
    let columns: Vec<&str> = target
        .key
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    format!(
        "the key ({}) of {} is no longer its replica identity; the job's publication was dropped, since with it every UPDATE \
         of the table would fail. Give the table a primary key again, then set init_failed_at to NULL",
        columns.join(", "),
        target.qualified()
    )
}
