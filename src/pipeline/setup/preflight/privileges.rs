//! What the daemon's role may read and write of a table.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{TargetColumn, find_column};
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Checks that no row is hidden from the role. Row level security does not apply to the stream, only to SQL:
/// write-backs would miss rows that the stream brings. `table` is the table's name, quoted.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_all_rows_visible(
    session: &Session,
    table: &str,
    oid: u32,
) -> Result<(), JobError> {
    let (active, forced_on_owner): (bool, bool) = session
        .query_one(
            "SELECT row_security_active(c.oid), c.relforcerowsecurity AND pg_has_role(c.relowner, 'USAGE') \
             FROM pg_class c WHERE c.oid = $1",
            &[&oid],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("checking row security"))?;
    if !active {
        return Ok(());
    }
    let role = session.role().await?;
    let for_owner = match forced_on_owner {
        true => format!(", or as its owner: ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;"),
        false => String::new(),
    };
    Err(JobError::permanent(format!(
        "row level security of {table} applies to the role {role}, so rows may be hidden from it; \
         run as a superuser: ALTER ROLE {} BYPASSRLS;{for_owner}",
        identifier(&role),
    )))
}

/// Checks that the role may write those of the job's columns that exist. Commands that only read need not ask.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_writable(
    session: &Session,
    names: &TargetNames,
    columns: &[TargetColumn],
) -> Result<(), JobError> {
    let destination = Some(names.destination.as_str());
    let written = [
        (destination, "dst_column"),
        (names.fingerprint.as_deref(), "fingerprint_column"),
    ];
    for (name, option) in written {
        let column = name.and_then(|name| find_column(columns, name));
        // A write-back also compares with the vector that is there.
        if let Some(column) = column.filter(|column| !column.writable || !column.readable) {
            return Err(not_writable(session, names, &column.name, option).await);
        }
    }
    Ok(())
}

/// Checks that the role may use the schema of the destination's type. Write-backs cast to it, and an extension may be moved
/// to a schema of its own.
///
/// # Errors
/// Permanent, with the remedy; and the server's.
pub async fn check_type_usable(
    session: &Session,
    names: &TargetNames,
    destination: &TargetColumn,
) -> Result<(), JobError> {
    if destination.base_usable {
        return Ok(());
    }
    let role = session.role().await?;
    let schema = identifier(&destination.base_schema);
    Err(JobError::permanent(format!(
        "{} (dst_column) has the type {}, and the role {role} may not use the schema {schema}; \
         run as its owner: GRANT USAGE ON SCHEMA {schema} TO {};",
        names.qualified_column(&destination.name),
        destination.declared,
        identifier(&role)
    )))
}

/// The error for a column that the role may not write. `option` is the column of the jobs table that names it.
async fn not_writable(
    session: &Session,
    names: &TargetNames,
    column: &str,
    option: &str,
) -> JobError {
    let role = match session.role().await {
        Ok(role) => role,
        Err(error) => return error.into(),
    };
    JobError::permanent(format!(
        "the role {role} may not read and write {} ({option}); run as its owner: GRANT SELECT ({name}), UPDATE ({name}) ON {} TO {};",
        names.qualified_column(column),
        names.qualified(),
        identifier(&role),
        name = identifier(column),
    ))
}
