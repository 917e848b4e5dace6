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
use tokio_postgres::error::SqlState;

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
/// [`JobError::Transient`] where the earlier session does not end, [`JobError::StandsBack`] where the role may not end it:
/// any role that may connect to the database can take the lock; and the server's.
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
async fn end_holder(session: &Session, key: i64) -> Result<(), JobError> {
    // A lock with a key of 64 bits stands in pg_locks with its upper half in classid, its lower half in objid, and
    // objsubid 1 (manual, "pg_locks"). Other databases may use the same key for something else.
    let ended = session
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks \
             WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid <> pg_backend_pid() \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND classid::bigint << 32 | objid::bigint = $1",
            &[&key],
        )
        .await;
    let Err(error) = ended else { return Ok(()) };
    let error = DatabaseError::during("ending an earlier session that writes for this job")(error);
    if error.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return Err(error.into());
    }
    // Not the job's fault: it waits, and keeps its slot.
    let holder = session_locks::holders(session, &[key]).await?;
    let holder = holder.first().map_or_else(String::new, |holder| {
        format!(
            " of the role {}: SELECT pg_terminate_backend({});",
            holder.role.as_deref().unwrap_or("?"),
            holder.pid
        )
    });
    Err(JobError::StandsBack(format!(
        "another session holds the advisory lock by which one session at a time writes for this job, and this role may \
         not end it. If it is none of lantern-cli, let a superuser end that session{holder} and REVOKE CONNECT on the \
         database from roles that have no business there"
    )))
}
