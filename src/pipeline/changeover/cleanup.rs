//! What is left of a changeover: the new column of one that was given up, and the old column of one that has happened.

use crate::jobs::{Definition, JobId};
use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::changeover::stage::{Columns, Stage};
use crate::pipeline::error::JobError;
use crate::pipeline::index::leftover;
use crate::pipeline::setup::ddl;
use crate::postgres::Session;
use crate::postgres::quote::identifier;

/// Drops the columns that the job was to swap in, with their indexes, if it has not done so. Returns whether there was
/// something to drop.
///
/// `session` keeps the defaults of its role as its settings, so use it for nothing else afterwards.
///
/// # Errors
/// The server's, and [`JobError::Transient`] if the lock stays unavailable.
///
/// Cancellation safe: it can be repeated.
pub async fn drop_staging(
    session: &Session,
    definition: &Definition,
    job: &JobId,
) -> Result<bool, JobError> {
    let (Some(table), Some(names)) = (&definition.table, ColumnNames::new(definition, job)) else {
        return Ok(false);
    };
    let schema = &definition.schema;
    let found = Columns::read(session, schema, table, &names).await?;
    if found.stage(&names, false) == Stage::Swapped {
        return Ok(false);
    }
    let columns = names.all().map(|column| column.staging.as_str());
    let columns: Vec<&str> = columns.filter(|column| found.has(column)).collect();
    if columns.is_empty() {
        return Ok(false);
    }
    let staging = &names.destination.staging;
    // A build may go on at the server.
    leftover::drop_unfinished(session, schema, table, staging).await?;
    drop_columns(session, schema, table, &columns).await?;
    Ok(true)
}

/// Drops the columns that the job has replaced. Returns their names, quoted.
///
/// # Errors
/// The server's, and [`JobError::Transient`] if the lock stays unavailable.
///
/// Cancellation safe: it can be repeated.
pub async fn drop_before(
    session: &Session,
    definition: &Definition,
    job: &JobId,
) -> Result<Vec<String>, JobError> {
    let (Some(table), Some(names)) = (&definition.table, ColumnNames::new(definition, job)) else {
        return Ok(Vec::new());
    };
    let schema = &definition.schema;
    let found = Columns::read(session, schema, table, &names).await?;
    let columns = names.all().map(|column| column.before.as_str());
    let columns: Vec<&str> = columns.filter(|column| found.has(column)).collect();
    if !columns.is_empty() {
        drop_columns(session, schema, table, &columns).await?;
    }
    Ok(columns.into_iter().map(identifier).collect())
}

async fn drop_columns(
    session: &Session,
    schema: &str,
    table: &str,
    columns: &[&str],
) -> Result<(), JobError> {
    let drop = |column: &&str| format!("DROP COLUMN IF EXISTS {}", identifier(column));
    let drops: Vec<String> = columns.iter().map(drop).collect();
    let table = format!("{}.{}", identifier(schema), identifier(table));
    ddl::run(
        session,
        &format!("ALTER TABLE {table} {}", drops.join(", ")),
    )
    .await
}
