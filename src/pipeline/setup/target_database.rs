//! Where a job's `db_connection` leads, if it may be followed.

use crate::jobs::Definition;
use crate::pipeline::error::JobError;
use crate::postgres::{AllowedHosts, ConnectionString};

/// The target database of a job. Nothing connects to a target that has not come through here.
///
/// # Errors
/// Where the string cannot be understood, or names a host that this daemon may not connect to.
pub fn of(definition: &Definition, allowed: &AllowedHosts) -> Result<ConnectionString, JobError> {
    let database: ConnectionString = definition.db_connection.parse()?;
    allowed.check(&database.servers())?;
    Ok(database)
}
