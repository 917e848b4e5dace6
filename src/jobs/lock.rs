//! One daemon a job: session advisory locks in the jobs database.
//!
//! A lock belongs to the session of the [`JobStore`]; when that session ends, however it ends, the lock is free.

use xxhash_rust::xxh3::xxh3_64;

use super::definition::JobId;
use super::store::JobStore;
use crate::postgres::DatabaseError;
use crate::replication::SlotName;

/// What one daemon at a time may do.
#[derive(Debug, Clone, Copy)]
pub enum Lock<'a> {
    /// Run a job, or clean up behind it.
    Job(&'a JobId),
    /// Run jobs that share this replication slot.
    Shared(&'a SlotName),
    /// Look for slots that belong to no job.
    Sweep,
}

impl Lock<'_> {
    /// The 64-bit key, which names the jobs table too.
    pub(super) fn key(self, store: &JobStore) -> i64 {
        let table = store.table().oid();
        let name = match self {
            Lock::Job(id) => format!("lantern job {table} {id}"),
            Lock::Shared(slot) => format!("lantern slot {table} {slot}"),
            Lock::Sweep => format!("lantern sweep {table}"),
        };
        xxh3_64(name.as_bytes()).cast_signed()
    }
}

/// Takes the lock if no other session holds it. A session that holds it already must not ask again: advisory locks are
/// counted.
pub async fn try_lock(store: &JobStore, lock: Lock<'_>) -> Result<bool, DatabaseError> {
    let row = store
        .session()
        .query_one("SELECT pg_try_advisory_lock($1)", &[&lock.key(store)])
        .await
        .map_err(DatabaseError::during("taking the lock of a job"))?;
    Ok(row.get(0))
}

pub async fn unlock(store: &JobStore, lock: Lock<'_>) -> Result<(), DatabaseError> {
    store
        .session()
        .execute("SELECT pg_advisory_unlock($1)", &[&lock.key(store)])
        .await
        .map_err(DatabaseError::during("giving back the lock of a job"))?;
    Ok(())
}
