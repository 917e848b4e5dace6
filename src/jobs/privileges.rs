//! What the role may do with the columns of the jobs table, and what it must.
//!
//! A daemon reads the columns that it knows and writes some of them; a command only reads. Neither needs a right on any
//! other column, nor on the table as a whole.

use std::collections::BTreeMap;

use super::definition::OPTIONS;
use super::table_error::JobsTableError;
use crate::postgres::answer::all;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The columns of the documented table. The daemon does not start if one of them is missing.
pub(super) const REQUIRED: &[&str] = &[
    "id",
    "db_connection",
    "init_started_at",
    "init_failed_at",
    "init_finished_at",
    "init_failure_reason",
    "canceled_at",
    "schema",
    "table",
    "src_column",
    "dst_column",
    "embedding_model",
];

/// What the daemon writes, as far as the table has it.
const WRITTEN: &[&str] = &[
    "init_started_at",
    "init_failed_at",
    "init_finished_at",
    "init_failure_reason",
    "init_progress",
    "waits_for",
    "last_error",
    "last_error_at",
    "stats",
    "index_state",
    "replaced_by",
    "updated_at",
];

/// Connection strings, which may hold passwords. A command that is told where the target is need not read them.
pub(super) const SECRET: &[&str] = &["db_connection", "write_connection"];

/// What is done with the jobs table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadAndUpdate,
}

/// A column, and what the role may do with it.
pub(super) struct Column {
    /// Its type.
    pub kind: String,
    pub readable: bool,
    pub writable: bool,
}

/// Checks that the role may read the columns that are read, and update those that are written. It needs no right on
/// any other column. `table` is its name, quoted.
///
/// # Errors
/// [`JobsTableError::Privilege`], with the statement.
pub(super) fn check(
    table: &str,
    role: &str,
    access: Access,
    columns: &BTreeMap<String, Column>,
) -> Result<(), JobsTableError> {
    let read = columns.iter().filter(|(name, _)| match access {
        Access::Read => is_read(name) && !SECRET.contains(&name.as_str()),
        Access::ReadAndUpdate => is_read(name),
    });
    let unreadable: Vec<&str> = read
        .filter(|(_, column)| !column.readable)
        .map(|(name, _)| name.as_str())
        .collect();
    let written = columns
        .iter()
        .filter(|(name, _)| access == Access::ReadAndUpdate && WRITTEN.contains(&name.as_str()));
    let unwritable: Vec<&str> = written
        .filter(|(_, column)| !column.writable)
        .map(|(name, _)| name.as_str())
        .collect();
    let privilege = match (unreadable.is_empty(), unwritable.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => "read",
        (true, false) => "update",
    };
    // A role that may read nothing is most likely meant to read all.
    let grant = match columns.values().any(|column| column.readable) {
        false if access == Access::Read => "SELECT".to_owned(),
        false => "SELECT, UPDATE".to_owned(),
        true => [("SELECT", &unreadable), ("UPDATE", &unwritable)]
            .into_iter()
            .filter(|(_, lacking)| !lacking.is_empty())
            .map(|(privilege, lacking)| {
                let quoted: Vec<String> = lacking.iter().map(|name| identifier(name)).collect();
                format!("{privilege} ({})", quoted.join(", "))
            })
            .collect::<Vec<_>>()
            .join(", "),
    };
    Err(JobsTableError::Privilege {
        role: role.to_owned(),
        role_quoted: identifier(role),
        privilege,
        grant,
        table: table.to_owned(),
    })
}

/// Whether the column is read, where the table has it.
fn is_read(name: &str) -> bool {
    let is_option = OPTIONS.iter().any(|(option, _)| *option == name);
    is_option
        || REQUIRED.contains(&name)
        || [
            "label",
            "init_progress",
            "last_error",
            "index_state",
            "replaced_by",
        ]
        .contains(&name)
}

/// The columns of a table by name.
pub(super) async fn read_columns(
    session: &Session,
    oid: u32,
) -> Result<BTreeMap<String, Column>, DatabaseError> {
    let found: Vec<(String, String, bool, bool)> = session
        .query(
            "SELECT attname::text, format_type(atttypid, NULL), has_column_privilege($1::oid, attnum, 'SELECT'), \
                    has_column_privilege($1::oid, attnum, 'UPDATE') \
             FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            &[&oid],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during(
            "reading the columns of the jobs table",
        ))?;
    let column = |kind, readable, writable| Column {
        kind,
        readable,
        writable,
    };
    let columns = found.into_iter();
    Ok(columns
        .map(|(name, kind, readable, writable)| (name, column(kind, readable, writable)))
        .collect())
}
