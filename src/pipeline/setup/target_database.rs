//! The database of a job's `db_connection`, if the daemon may connect to it.

use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::postgres::{ConnectionString, JobAccess};

/// The target database of a job. Every session with a target starts here, because the author of a jobs row must not
/// choose which hosts the daemon talks to (`--allow-host`), nor which of its files it reads (`--tls-directory`).
///
/// # Errors
/// The string is not a connection string, or names a host or a file that is not allowed.
pub fn from_definition(
    definition: &Definition,
    access: &JobAccess,
) -> Result<ConnectionString, JobError> {
    let database: ConnectionString = definition.db_connection.parse()?;
    Ok(access.admit(database)?)
}

/// The same database for what reads and writes rows of the table, where the job names another role for that
/// (`write_connection`). That it is the same database can be told only when connected: see
/// [`row_access`](super::row_access).
///
/// # Errors
/// As [`from_definition`].
pub fn of_rows(
    definition: &Definition,
    access: &JobAccess,
) -> Result<Option<ConnectionString>, JobError> {
    let Some(text) = &definition.write_connection else {
        return Ok(None);
    };
    let database = text.parse::<ConnectionString>();
    let database = database
        .map_err(|error| JobError::permanent(format!("write_connection of the job: {error}")))?;
    Ok(Some(access.admit(database)?))
}
