//! What replication needs of the server and of the role.

use crate::jobs::InitProgress;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::restart::{restart_or, restart_or_raise};
use crate::pipeline::setup::preflight::service::{
    Service, replication_remedy, setting_remedy, wal_level_remedy,
};
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// The first version that can be a target, as `server_version_num`.
const MIN_VERSION: u32 = 140_000;

/// SQL that is true where the current role may replicate. On Amazon RDS the attribute belongs to a role of the service,
/// and membership in another role stands for it.
pub const MAY_REPLICATE: &str = "((SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
     OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'member')))";

/// Checks the version of the server; returns its number for people.
///
/// # Errors
/// Permanent.
pub fn check_version(session: &Session) -> Result<String, JobError> {
    let version = session.version();
    if version < MIN_VERSION {
        return Err(JobError::permanent(format!(
            "the target server is PostgreSQL {}; version {} or later is needed",
            version / 10_000,
            MIN_VERSION / 10_000
        )));
    }
    Ok(format!("{}.{}", version / 10_000, version % 10_000))
}

/// Checks that texts of the database have an encoding; returns it.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_encoding(session: &Session) -> Result<String, JobError> {
    let encoding = setting(session, "server_encoding").await?;
    if encoding == "SQL_ASCII" {
        return Err(JobError::permanent(format!(
            "the target database {} has the encoding SQL_ASCII, which does not say what its bytes mean; \
             create a database with ENCODING 'UTF8', and restore a dump of this one into it",
            session.server().database()
        )));
    }
    Ok(encoding)
}

/// Checks that the WAL can be decoded.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_wal_level(session: &Session) -> Result<(), JobError> {
    let wal_level = setting(session, "wal_level").await?;
    if wal_level == "logical" {
        return Ok(());
    }
    let remedy = wal_level_remedy(Service::of(session).await?);
    let remedy = restart_or(session, "wal_level", |value| value == "logical", remedy).await?;
    Err(JobError::permanent(format!(
        "the target server has wal_level = {wal_level}; logical replication needs: {remedy}"
    )))
}

/// Checks that the role may replicate; returns the role.
///
/// # Errors
/// [`JobError::AccessRefused`] with the remedy, and the server's.
pub async fn check_may_replicate(session: &Session) -> Result<String, JobError> {
    let role = session.role().await?;
    let may_replicate: bool = session
        .query_one(&format!("SELECT {MAY_REPLICATE}"), &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("checking the rights of the role"))?;
    if may_replicate {
        return Ok(role);
    }
    let remedy = replication_remedy(Service::of(session).await?, &role);
    Err(JobError::AccessRefused(format!(
        "the role {role} lacks the REPLICATION attribute; {remedy}"
    )))
}

/// A setting of the server.
async fn setting(session: &Session, name: &str) -> Result<String, DatabaseError> {
    session
        .query_one("SELECT current_setting($1)", &[&name])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("checking the target server"))
}

/// Whether the server is a standby, to which no vector can be written.
///
/// # Errors
/// The server's.
pub async fn is_standby(session: &Session) -> Result<bool, DatabaseError> {
    session
        .query_one("SELECT pg_is_in_recovery()", &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("checking the target server"))
}

/// A job that has run before meets a standby while its cluster fails over. One that has not was given the wrong
/// address.
pub fn standby_refusal(progress: InitProgress) -> JobError {
    let sentence = "the target server is a standby; vectors can only be written to the primary";
    match progress {
        InitProgress::New => JobError::permanent(format!(
            "{sentence}: name it in db_connection, or all servers with target_session_attrs=read-write"
        )),
        _ => JobError::Transient(sentence.into()),
    }
}

/// How many slots a server has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRoom {
    /// `max_replication_slots`.
    pub limit: i32,
    /// How many exist.
    pub used: i32,
    /// The slot of the job is among them.
    pub has_own: bool,
}

/// Checks that one more replication slot fits on the server, before the publication is created: the server itself would
/// refuse only the slot, which comes second. One of `own` that exists already needs no other.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_free_slot(session: &Session, own: &[&SlotName]) -> Result<SlotRoom, JobError> {
    let own: Vec<&str> = own.iter().map(|name| name.as_str()).collect();
    let (limit, used, has_own): (i32, i32, bool) = session
        .query_one(
            "SELECT current_setting('max_replication_slots')::int, count(*)::int, \
                    COALESCE(bool_or(slot_name = ANY ($1::text[])), false) FROM pg_replication_slots",
            &[&own],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("counting replication slots"))?;
    if used < limit || has_own {
        return Ok(SlotRoom {
            limit,
            used,
            has_own,
        });
    }
    let more = i64::from(limit.max(1)) * 2;
    let name = "max_replication_slots";
    let remedy = setting_remedy(Service::of(session).await?, name, more);
    let remedy = restart_or_raise(session, name, limit, remedy).await?;
    Err(JobError::permanent(format!(
        "all {limit} replication slots of the server are in use; drop unused ones (SELECT * FROM pg_replication_slots) \
         or allow more: {remedy}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_does_not_fail_a_job_that_has_run_before() {
        assert!(standby_refusal(InitProgress::Finished).is_transient());
        assert!(standby_refusal(InitProgress::StartedAgain).is_transient());
        assert!(!standby_refusal(InitProgress::New).is_transient());
    }
}
