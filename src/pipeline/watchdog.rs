//! Keeps a publication from harming its table's owner.
//!
//! A table that is published with its updates must have a replica identity, or each UPDATE of it fails. Nothing stops a
//! user from dropping the key while a job runs, so it is looked at again and again; once it is gone, the job ends and its
//! publication with it.
//!
//! The publication itself is watched too. Servers from 18 on leave out what a missing one would have published, without an
//! error; then the job starts over and embeds every row again.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::postgres::{DatabaseError, Session};

use super::error::JobError;
use super::preflight::{KeyState, key_state};
use super::provision::publication_defect;
use super::target::TargetTable;

const EVERY: Duration = Duration::from_secs(1);

/// Returns when the table cannot or is not published any more, or its database cannot be asked. Shares the session of the
/// write-backs: a question that falls into an aborted transaction is asked again the next time.
///
/// Cancellation safe.
pub async fn watch(session: Arc<Session>, target: &TargetTable, publication: &str) -> JobError {
    loop {
        tokio::time::sleep(EVERY).await;
        match look(&session, target, publication).await {
            Ok(None) => {}
            Ok(Some(error)) => return error,
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
    }
}

async fn look(
    session: &Session,
    target: &TargetTable,
    publication: &str,
) -> Result<Option<JobError>, DatabaseError> {
    match key_state(session, target).await? {
        KeyState::Intact => {}
        KeyState::Lost => return Ok(Some(JobError::Harmful(lost_identity(target)))),
        KeyState::Retyped => {
            return Ok(Some(JobError::Transient(format!(
                "the key of {} has other types now; the table is looked at anew",
                target.qualified()
            ))));
        }
    }
    let defect = publication_defect(session, publication, target).await?;
    Ok(defect.map(|defect| JobError::Transient(format!("the publication {publication} {defect}"))))
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
