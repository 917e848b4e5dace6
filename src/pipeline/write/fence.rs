//! The fence: one session at a time writes the vectors of a job.
//!
//! It is a session-level advisory lock in the target database, named after the job's slot.
//!
//! The lock in the jobs database decides which daemon runs a job. A daemon that has lost that lock and does not know it
//! yet, because it hung or its network is gone, may still hold a session here. The daemon that takes the job over ends
//! that session first, as it ends the walsender that still holds the slot. The server releases an advisory lock with
//! its session (PostgreSQL manual, "Advisory Locks"), so the fence needs no clean-up, whatever happens to its holder.

use std::time::Duration;

use tokio::time::Instant;

use crate::pipeline::error::JobError;
use crate::pipeline::slot::session_locks;
use crate::pipeline::slot::session_locks::try_lock;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// How long a session that was told to end may take.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before the lock is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Makes `session` the only one that writes for the job, for as long as it lives. `slot` is the job's own, whether it
/// is used or shared: its name is unique to the job and its definition.
///
/// # Errors
/// [`JobError::Transient`] where the earlier session does not end; the server's, such as where the role may not end it.
///
/// Cancellation: the session may or may not hold the lock, so drop it as well.
pub async fn acquire(session: &Session, slot: &SlotName) -> Result<(), JobError> {
    let key = session_locks::fence(slot);
    let deadline = Instant::now() + END_TIMEOUT;
    while !try_lock(session, key).await? {
        if Instant::now() > deadline {
            return Err(JobError::Transient(
                "an earlier session that writes for this job does not end".into(),
            ));
        }
        end_holder(session, key).await?;
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
    Ok(())
}

/// Tells the session that holds the lock to end.
async fn end_holder(session: &Session, key: i64) -> Result<(), DatabaseError> {
    // A lock with a key of 64 bits stands in pg_locks with its upper half in classid, its lower half in objid, and
    // objsubid 1 (manual, "pg_locks"). Other databases may use the same key for something else.
    session
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks \
             WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid <> pg_backend_pid() \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND classid::bigint << 32 | objid::bigint = $1",
            &[&key],
        )
        .await
        .map_err(DatabaseError::during(
            "ending an earlier session that writes for this job",
        ))?;
    Ok(())
}
