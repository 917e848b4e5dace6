//! One session a job writes vectors: a session advisory lock in the target database, named after the job's slot.
//!
//! The lock in the jobs database decides which daemon runs a job. A daemon that has lost it and does not know yet, because it
//! hung or its network is gone, may still hold a session here. Whoever has taken the job over ends that session first, as it
//! ends the walsender that still holds the slot, so that nothing is written by two.

use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::pipeline::error::JobError;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// How long an ended session may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes `session` the only one that writes for the job, for as long as it lives.
///
/// # Errors
/// [`JobError::Transient`] where the other session does not go; the server's where it may not be ended.
pub async fn acquire(session: &Session, slot: &SlotName) -> Result<(), JobError> {
    let key = xxh3_64(format!("lantern write-back {slot}").as_bytes()).cast_signed();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let acquired = session
            .query_one("SELECT pg_try_advisory_lock($1)", &[&key])
            .await
            .map_err(DatabaseError::during("claiming the write-back of a job"))?;
        if acquired.get(0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(JobError::Transient(
                "an earlier session that writes for this job does not end".into(),
            ));
        }
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
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
