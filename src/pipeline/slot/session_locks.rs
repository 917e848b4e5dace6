//! Advisory locks by which sessions in a target database tell each other what they do.
//!
//! ```text
//! the session that writes for a job holds      key
//! ───────────────────────────────────────────  ───────────────────────────────────────────────
//! the fence of the job                         64 bits: the job's own slot
//! each column that it writes                   64 bits: table and column
//! the table of which it builds an index        64 bits: table
//! the index that it builds                     64 bits: table and name of the index
//! a column that a command writes, shared       64 bits: table and column
//! a table of passages, for one transaction     64 bits: table
//! which job it is of, shared                   32 bits of a tag, and 32 of: the instance of the jobs table's server,
//!                                              the jobs table's identity, a hash of the job's id
//! ```
//!
//! The server releases them with the session (PostgreSQL manual, "Advisory Locks"), so they need no clean-up, whatever
//! happens to their holder. Everyone may read them in `pg_locks`. There a key of 64 bits has its upper half in
//! `classid`, its lower half in `objid`, and `objsubid` 1. Keys of the other kind, of two numbers, are left to the
//! daemons themselves (`jobs/presence.rs`).
//!
//! Daemons of other versions compute the same keys: the texts below never change.

use tokio_postgres::Row;
use xxhash_rust::xxh3::xxh3_64;

use crate::jobs::JobId;
use crate::postgres::{DatabaseError, ServerInstance, Session};
use crate::replication::SlotName;

/// The key of the fence: one session at a time writes for a job under its definition.
pub fn fence(slot: &SlotName) -> i64 {
    key(&format!("lantern write-back {slot}"))
}

/// The key of a column that a job writes, by the OID of its table and its number there.
pub fn column(table: u32, number: i16) -> i64 {
    key(&format!("lantern column {table} {number}"))
}

/// The key of a table whose index is built, by its OID: one session at a time, as the statement demands it.
pub fn index_build(table: u32) -> i64 {
    key(&format!("lantern index build {table}"))
}

/// The key of an index while it is built, by the OID of its table and its name.
pub fn index(table: u32, name: &str) -> i64 {
    key(&format!("lantern index {table} {name}"))
}

/// The key of a column into which a command writes vectors beside the daemon, by the OID of its table and its number
/// there. Any number of commands share it.
pub fn column_of_command(table: u32, number: i16) -> i64 {
    key(&format!("lantern command column {table} {number}"))
}

/// The key of a table of passages while one session writes it, by its OID.
pub fn passages(table: u32) -> i64 {
    key(&format!("lantern passages {table}"))
}

fn key(text: &str) -> i64 {
    xxh3_64(text.as_bytes()).cast_signed()
}

/// The tags of the keys that say which job a session is of: server, jobs table, job.
const TAGS: [&str; 3] = ["lantern jobs server", "lantern jobs table", "lantern job"];

fn half(text: &str) -> u32 {
    let hash = xxh3_64(text.as_bytes());
    (hash ^ (hash >> 32)) as u32
}

/// Which job a session works for, as other sessions can see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The server of the jobs database ([`ServerInstance::number`]).
    pub jobs_server: u32,
    /// The jobs table.
    pub jobs_table: u32,
    /// A hash of the job's id.
    pub job: u32,
}

impl Identity {
    /// That of a job of this jobs table.
    pub fn new(jobs_server: ServerInstance, jobs_table: u32, job: &JobId) -> Self {
        Identity {
            jobs_server: jobs_server.number(),
            jobs_table,
            job: half(job.as_str()),
        }
    }

    /// Whether both are of the same job, whatever server has the jobs table.
    pub fn is_same_job(self, other: Identity) -> bool {
        (self.jobs_table, self.job) == (other.jobs_table, other.job)
    }
}

/// Tells all sessions of the database which job this one works for. Do it before the session takes another lock of this
/// module.
///
/// # Errors
/// The server's.
pub async fn introduce(session: &Session, identity: Identity) -> Result<(), DatabaseError> {
    let values = [identity.jobs_server, identity.jobs_table, identity.job];
    let keys: Vec<i64> = TAGS
        .iter()
        .zip(values)
        .map(|(tag, value)| (i64::from(half(tag)) << 32) | i64::from(value))
        .collect();
    session
        .execute(
            "SELECT pg_advisory_lock_shared(key) FROM unnest($1::bigint[]) AS keys (key)",
            &[&keys],
        )
        .await
        .map_err(DatabaseError::during("introducing the session of a job"))?;
    Ok(())
}

/// Takes the lock unless another session has it; returns whether it was taken.
///
/// # Errors
/// The server's.
pub async fn try_lock(session: &Session, key: i64) -> Result<bool, DatabaseError> {
    session
        .query_one("SELECT pg_try_advisory_lock($1)", &[&key])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("claiming the write-back of a job"))
}

/// A session that holds a lock of 64 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its server process.
    pub pid: i32,
    /// Its role; `None` where the session has just ended.
    pub role: Option<String>,
    /// Its `application_name`.
    pub application: String,
    /// The job that it works for. `None` for daemons of versions that do not say so.
    pub identity: Option<Identity>,
    /// It did something within the last seconds, or this role may not see whether it did.
    pub is_alive: bool,
}

/// A session that writes for a job asks the server something each second (`job/watchdog.rs`). One that has been idle
/// for longer is of a daemon that hangs, or that the network has cut off.
const HOLDERS: &str = "SELECT l.pid, COALESCE(a.application_name, ''), \
         ARRAY(SELECT max(r.objid::bigint) FROM unnest($2::bigint[]) WITH ORDINALITY AS tags (tag, place) \
               LEFT JOIN pg_locks r ON r.pid = l.pid AND r.locktype = 'advisory' AND r.objsubid = 1 \
                 AND r.database = l.database AND r.classid::bigint = tags.tag \
               GROUP BY tags.place ORDER BY tags.place), \
         COALESCE(a.state = 'active' OR clock_timestamp() - a.state_change < interval '4 seconds', true), a.usename::text \
     FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.pid <> pg_backend_pid() \
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
       AND (l.classid::bigint << 32 | l.objid::bigint) = ANY ($1)";

/// The sessions that hold any of these locks of 64 bits, but for this one.
///
/// # Errors
/// The server's.
pub async fn holders(session: &Session, keys: &[i64]) -> Result<Vec<Holder>, DatabaseError> {
    let tags = TAGS.map(|tag| i64::from(half(tag)));
    session
        .query(HOLDERS, &[&keys, &tags.as_slice()])
        .await
        .and_then(|rows| rows.iter().map(holder).collect())
        .map_err(DatabaseError::during(
            "looking for sessions that write for a job",
        ))
}

fn holder(row: &Row) -> Result<Holder, tokio_postgres::Error> {
    let numbers: Vec<Option<i64>> = row.try_get(2)?;
    let number = |place: usize| {
        let value = numbers.get(place).copied().flatten();
        value.and_then(|value| u32::try_from(value).ok())
    };
    let identity = || {
        Some(Identity {
            jobs_server: number(0)?,
            jobs_table: number(1)?,
            job: number(2)?,
        })
    };
    Ok(Holder {
        pid: row.try_get(0)?,
        role: row.try_get(4)?,
        application: row.try_get(1)?,
        identity: identity(),
        is_alive: row.try_get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_in_every_version_of_this_program() {
        let slot: SlotName = "lantern_000000ab_17_6e010f28".parse().unwrap();
        assert_eq!(
            fence(&slot),
            xxh3_64(b"lantern write-back lantern_000000ab_17_6e010f28").cast_signed()
        );
        assert_eq!(
            column(16400, 3),
            xxh3_64(b"lantern column 16400 3").cast_signed()
        );
        assert_eq!(
            column_of_command(16400, 3),
            xxh3_64(b"lantern command column 16400 3").cast_signed()
        );
    }
}
