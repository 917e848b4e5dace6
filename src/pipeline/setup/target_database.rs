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
