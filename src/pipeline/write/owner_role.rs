//! Write-backs as the owner of the table, where the role that would write has more rights than it needs.
//!
//! An UPDATE runs code of the table: triggers, constraints, expressions. As a superuser it may do anything, by mistake or
//! not: pass over row security, write where no user of the table may. So the session takes the owner's role (`SET ROLE`),
//! where it may, and where the owner has fewer rights.
//!
//! **What that does not cover:** code that means to gain rights says `RESET ROLE` first. Only a login with few rights
//! helps against that; see
//! [`users_code`](crate::pipeline::setup::preflight::users_code). So the warning and `--refuse-superuser` stay.

use tokio_postgres::error::SqlState;

use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The owner of the table `$1`, if a session should take its role: it is another role, no superuser, this one has more
/// rights and may become it, and what a write-back needs is allowed to it, reading the table `$2` included. Forced row
/// security would hide rows from it. `$3` is whether rows are inserted and deleted, too.
const OWNER: &str = "SELECT o.rolname::text, s.rolname::text \
     FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_class t ON t.oid = $2 \
     JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
     JOIN pg_catalog.pg_roles s ON s.rolname = current_user \
     WHERE c.oid = $1 AND o.oid <> s.oid AND NOT o.rolsuper AND pg_has_role(s.oid, o.oid, 'MEMBER') \
       AND (s.rolsuper OR s.rolcreaterole AND NOT o.rolcreaterole OR s.rolcreatedb AND NOT o.rolcreatedb \
            OR s.rolbypassrls AND NOT o.rolbypassrls) \
       AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND NOT o.rolbypassrls) \
       AND NOT (t.relrowsecurity AND (t.relforcerowsecurity OR t.relowner <> o.oid) AND NOT o.rolbypassrls) \
       AND has_schema_privilege(o.oid, c.relnamespace, 'USAGE') AND has_schema_privilege(o.oid, t.relnamespace, 'USAGE') \
       AND has_table_privilege(o.oid, c.oid, 'SELECT') AND has_table_privilege(o.oid, c.oid, 'UPDATE') \
       AND has_table_privilege(o.oid, t.oid, 'SELECT') \
       AND (NOT $3 OR has_table_privilege(o.oid, c.oid, 'INSERT') AND has_table_privilege(o.oid, c.oid, 'DELETE'))";

/// A table that is written.
pub struct WrittenTable {
    oid: u32,
    /// Its name, quoted.
    name: String,
    /// The table that is read for it.
    source: u32,
    /// Whether rows are inserted and deleted, too.
    changes_rows: bool,
}

impl WrittenTable {
    /// The target table, which is updated.
    pub fn of_vectors(target: &TargetTable) -> Self {
        WrittenTable {
            oid: target.oid,
            name: target.qualified(),
            source: target.oid,
            changes_rows: false,
        }
    }

    /// The table of passages of this target.
    pub fn of_passages(target: &TargetTable, passages: &PassageTable) -> Self {
        WrittenTable {
            oid: passages.oid,
            name: passages.qualified(),
            source: target.oid,
            changes_rows: true,
        }
    }
}

/// Lets the statements of this session, from now on, run as the owner of the table, where that is of use. Returns
/// whether they do.
///
/// # Errors
/// The server's.
pub async fn take(session: &Session, table: &WrittenTable) -> Result<bool, DatabaseError> {
    let failed =
        || DatabaseError::during(format!("taking the role of the owner of {}", table.name));
    let found: Option<(String, String)> = session
        .query_opt(OWNER, &[&table.oid, &table.source, &table.changes_rows])
        .await
        .and_then(|row| row.map(|row| columns(&row)).transpose())
        .map_err(failed())?;
    let Some((owner, role)) = found else {
        return Ok(false);
    };
    // From PostgreSQL 16 on, a membership may be one that does not allow it (WITH SET FALSE).
    let set = format!("SET ROLE {}", identifier(&owner));
    match session.batch_execute(&set).await {
        Ok(()) => {
            tracing::debug!(
                "write-backs to {} run as its owner {owner}, which has fewer rights than {role}",
                table.name
            );
            Ok(true)
        }
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(error) => Err(failed()(error)),
    }
}

/// Gives the session its own role back.
///
/// # Errors
/// The server's.
pub async fn give_back(session: &Session) -> Result<(), DatabaseError> {
    session
        .batch_execute("RESET ROLE")
        .await
        .map_err(DatabaseError::during("giving a role back"))
}
