//! What replication needs of the server and of the role.

use crate::pipeline::error::JobError;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Checks what replication needs of the server and the role.
pub async fn check_server(session: &Session) -> Result<(), JobError> {
    if session.version() < 140_000 {
        return Err(JobError::permanent(format!(
            "the target server is PostgreSQL {}; version 14 or later is needed",
            session.version() / 10_000
        )));
    }
    let row = session
        .query_one(
            "SELECT current_setting('wal_level'), \
                    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user) \
                      OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'member')), \
                    current_user::text",
            &[],
        )
        .await
        .map_err(DatabaseError::during("checking the target server"))?;
    let wal_level: String = row.get(0);
    if wal_level != "logical" {
        return Err(JobError::permanent(format!(
            "the target server has wal_level = {wal_level}; logical replication needs: ALTER SYSTEM SET wal_level = logical; and a restart of the server"
        )));
    }
    let role: String = row.get(2);
    if !row.get::<_, bool>(1) {
        return Err(JobError::permanent(format!(
            "the role {role} may not replicate; run as a superuser: ALTER ROLE {} REPLICATION; (managed services grant it in their own way, Amazon RDS by GRANT rds_replication)",
            identifier(&role)
        )));
    }
    Ok(())
}

/// Whether the server is a standby, to which no vector can be written.
pub async fn is_standby(session: &Session) -> Result<bool, JobError> {
    let row = session
        .query_one("SELECT pg_is_in_recovery()", &[])
        .await
        .map_err(DatabaseError::during("checking the target server"))?;
    Ok(row.get(0))
}

/// Whether one more replication slot fits on the server.
pub async fn check_free_slot(session: &Session) -> Result<(), JobError> {
    let row = session
        .query_one(
            "SELECT current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)::int",
            &[],
        )
        .await
        .map_err(DatabaseError::during("counting replication slots"))?;
    let (limit, used): (i32, i32) = (row.get(0), row.get(1));
    if used >= limit {
        return Err(JobError::permanent(format!(
            "all {limit} replication slots of the server are in use; drop unused ones (SELECT * FROM pg_replication_slots) \
             or raise it: ALTER SYSTEM SET max_replication_slots = {}; and restart the server",
            limit.max(1) * 2
        )));
    }
    Ok(())
}
