//! Dropping a slot.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::pipeline::error::JobError;
use crate::pipeline::slot::catalog as slot_lifecycle;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

pub async fn drop_slot(session: &Session, name: &SlotName) -> Result<(), JobError> {
    for _ in 0..100 {
        match slot_lifecycle::drop(session, name).await {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {
                free_slot(session, name).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                return Err(
                    DatabaseError::during(format!("dropping the replication slot {name}"))(error)
                        .into(),
                );
            }
        }
    }
    Err(JobError::Transient(format!(
        "the replication slot {name} stays in use"
    )))
}

/// Ends whoever reads from the slot. The job's lock is ours, so it can only be a connection that nobody is behind any
/// more.
pub async fn free_slot(session: &Session, name: &SlotName) -> Result<(), JobError> {
    slot_lifecycle::free(session, name).await.map_err(|error| {
        DatabaseError::during(format!("freeing the replication slot {name}"))(error).into()
    })
}
