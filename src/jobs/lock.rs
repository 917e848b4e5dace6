//! One daemon per job: session-level advisory locks in the jobs database.
//!
//! PostgreSQL manual, section "Advisory Locks" of chapter "Concurrency Control". Three properties matter here:
//!
//! - A session-level lock belongs to the session, not to a transaction. It is released with [`unlock`], or by the
//!   server when the session ends, however it ends. A daemon that crashes leaves no lock behind.
//! - Locks are counted: a session that takes one twice has to release it twice. So a daemon never asks
//!   for a lock that it holds.
//! - A key is one 64-bit number or a pair of 32-bit numbers, and the two kinds never collide. Jobs have keys of the
//!   first kind; the lock by which daemons find each other ([`presence`](super::presence)) has one of the second.
//!
//! A key is the hash of a text that names the jobs table and the object. Daemons of different versions meet at these
//! keys, so the texts never change.

use xxhash_rust::xxh3::xxh3_64;

use super::definition::JobId;
use super::store::JobStore;
use crate::postgres::DatabaseError;

/// What only one daemon at a time may do.
#[derive(Debug, Clone, Copy)]
pub enum JobsLock<'a> {
    /// Run a job, or remove what an ended one left behind.
    Job(&'a JobId),
    /// Run jobs that share the replication slot of this name.
    SharedSlot(&'a str),
    /// Search for slots that belong to no job.
    OrphanSearch,
}

impl JobsLock<'_> {
    /// The 64-bit key, which depends on the jobs table too.
    pub fn key(self, store: &JobStore) -> i64 {
        let table = store.table().oid();
        let name = match self {
            JobsLock::Job(id) => format!("lantern job {table} {id}"),
            JobsLock::SharedSlot(slot) => format!("lantern slot {table} {slot}"),
            JobsLock::OrphanSearch => format!("lantern sweep {table}"),
        };
        xxh3_64(name.as_bytes()).cast_signed()
    }
}

/// Takes the lock unless another session holds it; returns whether it was taken. A session that holds the lock already
/// must not call this: locks are counted.
///
/// # Errors
/// The server's.
pub async fn try_lock(store: &JobStore, lock: JobsLock<'_>) -> Result<bool, DatabaseError> {
    store
        .session()
        .query_one("SELECT pg_try_advisory_lock($1)", &[&lock.key(store)])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("taking an advisory lock"))
}

/// Releases the lock.
///
/// # Errors
/// The server's.
pub async fn unlock(store: &JobStore, lock: JobsLock<'_>) -> Result<(), DatabaseError> {
    store
        .session()
        .execute("SELECT pg_advisory_unlock($1)", &[&lock.key(store)])
        .await
        .map_err(DatabaseError::during("releasing an advisory lock"))?;
    Ok(())
}
