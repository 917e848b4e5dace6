//! Keeps a publication from harming its table's owner.
//!
//! A table that is published with its updates must have a replica identity, or each UPDATE of it fails. Nothing stops a
//! user from dropping the key while a job runs, so it is looked at again and again; once it is gone, the job ends and its
//! publication with it.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::postgres::Session;

use super::error::JobError;
use super::preflight::identity_covers;
use super::target::TargetTable;

const EVERY: Duration = Duration::from_secs(1);

/// Returns when the table cannot be published any more, or its database cannot be asked. Shares the session of the
/// write-backs: a question that falls into an aborted transaction is asked again the next time.
///
/// Cancellation safe.
pub async fn watch(session: Arc<Session>, target: &TargetTable) -> JobError {
    loop {
        tokio::time::sleep(EVERY).await;
        match identity_covers(&session, target).await {
            Ok(true) => {}
            Ok(false) => return JobError::Harmful(lost_identity(target)),
            Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => {}
            Err(error) => return error.into(),
        }
    }
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
