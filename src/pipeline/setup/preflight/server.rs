//! What replication needs of the server and of the role.

use crate::pipeline::error::JobError;
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The first version that can be a target, as `server_version_num`.
const MIN_VERSION: u32 = 140_000;

/// Checks version and `wal_level` of the server, the encoding of the database, and the role's right to replicate.
///
/// # Errors
/// Permanent ones with the remedy, [`JobError::AccessRefused`] where the role may not replicate, and the server's.
pub async fn check_server(session: &Session) -> Result<(), JobError> {
    if session.version() < MIN_VERSION {
        return Err(JobError::permanent(format!(
            "the target server is PostgreSQL {}; version {} or later is needed",
            session.version() / 10_000,
            MIN_VERSION / 10_000
        )));
    }
    // On Amazon RDS the attribute belongs to a role of the service, and membership in another role stands for it.
    let (wal_level, encoding, may_replicate): (String, String, bool) = session
        .query_one(
            "SELECT current_setting('wal_level'), current_setting('server_encoding'), \
                    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
                      OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'member'))",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("checking the target server"))?;
    if encoding == "SQL_ASCII" {
        return Err(JobError::permanent(format!(
            "the target database {} has the encoding SQL_ASCII, which does not say what its bytes mean; \
             create a database with ENCODING 'UTF8', and restore a dump of this one into it",
            session.server().database()
        )));
    }
    if wal_level != "logical" {
        return Err(JobError::permanent(format!(
            "the target server has wal_level = {wal_level}; \
             logical replication needs: ALTER SYSTEM SET wal_level = logical; and a restart of the server"
        )));
    }
    if !may_replicate {
        let role = session.role().await?;
        return Err(JobError::AccessRefused(format!(
            "the role {role} lacks the REPLICATION attribute; run as a superuser: ALTER ROLE {} REPLICATION; \
             (managed services grant it in their own way, Amazon RDS by GRANT rds_replication)",
            identifier(&role)
        )));
    }
    Ok(())
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

/// Checks that one more replication slot fits on the server, before the publication is created: the server itself would
/// refuse only the slot, which comes second.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_free_slot(session: &Session) -> Result<(), JobError> {
    let (limit, used): (i32, i32) = session
        .query_one(
            "SELECT current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)::int",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("counting replication slots"))?;
    if used < limit {
        return Ok(());
    }
    Err(JobError::permanent(format!(
        "all {limit} replication slots of the server are in use; drop unused ones (SELECT * FROM pg_replication_slots) \
         or allow more: ALTER SYSTEM SET max_replication_slots = {}; and restart the server",
        limit.max(1) * 2
    )))
}
