//! Dropping a slot, and ending a stale reader that keeps it in use.
//!
//! A slot has one reader at a time, and the server drops none that is being read (`ReplicationSlotAcquire` in
//! `slot.c`). The caller holds the lock of the job or of the shared slot, so a reader that is still there is a stale
//! one: a walsender whose client was killed or is behind a network cut. The server would notice only after
//! `wal_sender_timeout`.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::backoff::Backoff;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::catalog::{terminate_reader, try_drop_slot};
use crate::postgres::Session;
use crate::replication::SlotName;

/// How long a walsender may take to end.
const FREE_TIMEOUT: Duration = Duration::from_secs(5);
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// Drops the slot if it exists, and ends its reader first.
///
/// # Errors
/// [`JobError::Transient`] if the slot stays in use, and the server's.
///
/// Cancellation safe: each step can be repeated.
pub async fn drop_slot(session: &Session, name: &SlotName) -> Result<(), JobError> {
    let deadline = Instant::now() + FREE_TIMEOUT;
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    loop {
        match try_drop_slot(session, name).await {
            Ok(()) => return Ok(()),
            Err(error) if error.code() != Some(&SqlState::OBJECT_IN_USE) => {
                return Err(error.into());
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(JobError::Transient(format!(
                    "the replication slot {name} is still in use; see active_pid in pg_replication_slots"
                )));
            }
            Err(_) => free_slot(session, name).await?,
        }
        backoff.wait().await;
    }
}

/// Ends the stale reader of a slot, if it has one. Returns before the slot is free.
///
/// # Errors
/// The server's.
pub async fn free_slot(session: &Session, name: &SlotName) -> Result<(), JobError> {
    Ok(terminate_reader(session, name).await?)
}
