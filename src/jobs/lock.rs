//! One daemon a job: a session advisory lock in the jobs database.
//!
//! The lock belongs to the session of the [`JobStore`]; when that session ends, however it ends, the lock is free.

use xxhash_rust::xxh3::xxh3_64;

use super::definition::JobId;
use super::store::JobStore;
use crate::postgres::DatabaseError;

/// Takes the job's lock if no other session holds it. A session that holds it already must not ask again: advisory locks
/// are counted.
pub async fn try_lock(store: &JobStore, id: &JobId) -> Result<bool, DatabaseError> {
    let row = store
        .session()
        .query_one("SELECT pg_try_advisory_lock($1)", &[&key(store, id)])
        .await
        .map_err(DatabaseError::during("taking the lock of a job"))?;
    Ok(row.get(0))
}

pub async fn unlock(store: &JobStore, id: &JobId) -> Result<(), DatabaseError> {
    store
        .session()
        .execute("SELECT pg_advisory_unlock($1)", &[&key(store, id)])
        .await
        .map_err(DatabaseError::during("giving back the lock of a job"))?;
    Ok(())
}

fn key(store: &JobStore, id: &JobId) -> i64 {
    xxh3_64(format!("lantern job {} {id}", store.table().oid()).as_bytes()).cast_signed()
}
