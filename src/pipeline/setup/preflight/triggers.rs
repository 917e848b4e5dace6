//! Triggers of the target table that a write-back fires, and the right to skip them.

use crate::pipeline::error::JobError;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The first version that can GRANT the right to set one parameter (manual, "GRANT").
const GRANT_SET: u32 = 150_000;

/// Checks that the role may skip triggers, as `skip_triggers` of the job asks for.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_may_skip(session: &Session) -> Result<(), JobError> {
    let right = match session.version() >= GRANT_SET {
        true => "has_parameter_privilege('session_replication_role', 'SET')",
        false => "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
    };
    let may_skip: bool = session
        .query_one(&format!("SELECT {right}"), &[])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(
            "asking for the right to skip triggers",
        ))?;
    if may_skip {
        return Ok(());
    }
    let role = session.role().await?;
    Err(JobError::permanent(format!(
        "the role {role} may not set session_replication_role; {}",
        skip_remedy(session).await?
    )))
}

/// What to do where the role may not skip triggers.
///
/// # Errors
/// The server's.
pub async fn skip_remedy(session: &Session) -> Result<String, DatabaseError> {
    let grant = match session.version() < GRANT_SET {
        true => "before PostgreSQL 15 only a superuser may".to_owned(),
        false => {
            let role = session.role().await?;
            format!(
                "let a superuser GRANT SET ON PARAMETER session_replication_role TO {}",
                identifier(&role)
            )
        }
    };
    Ok(format!(
        "skip_triggers of the job asks for it; {grant}, or set skip_triggers to false"
    ))
}

/// What write-backs do to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenRows {
    /// They update them.
    Updated,
    /// They insert, update and delete them.
    Replaced,
}

impl WrittenRows {
    /// The bits of `pg_trigger.tgtype` (`pg_trigger.h`).
    fn events(self) -> i32 {
        match self {
            WrittenRows::Updated => 16,
            WrittenRows::Replaced => 4 | 8 | 16,
        }
    }
}

/// The triggers of the table with this OID that fire for each write-back of these columns, by name.
///
/// # Errors
/// The server's.
pub async fn firing_triggers(
    session: &Session,
    (oid, rows): (u32, WrittenRows),
    written: &[&str],
    skip_triggers: bool,
) -> Result<Vec<String>, DatabaseError> {
    // A trigger is enabled for the origin, for replicas, always or never. One that is FOR UPDATE OF columns does not fire
    // where none of them is written.
    session
        .query(
            "SELECT t.tgname::text FROM pg_trigger t \
             WHERE (cardinality(t.tgattr::int2[]) = 0 OR EXISTS ( \
                 SELECT FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attname = ANY ($3::text[]) \
                   AND a.attnum = ANY (t.tgattr::int2[]))) \
               AND t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype::int & $4 <> 0 AND t.tgenabled IN \
               ('A', CASE WHEN $2 OR current_setting('session_replication_role') = 'replica' THEN 'R' ELSE 'O' END) \
             ORDER BY t.tgname",
            &[&oid, &skip_triggers, &written, &rows.events()],
        )
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during("looking for triggers of the target table"))
}
