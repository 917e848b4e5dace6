//! Whether a changeover has happened: the catalog of the target decides, since it changes in the transaction of the
//! swap.

use crate::jobs::{Definition, JobId, JobRow};
use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::setup::definition::TargetNames;
use crate::postgres::{DatabaseError, Session};

/// How far a changeover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The job fills a column beside that of its predecessor.
    Filling,
    /// The column has the name of the predecessor's.
    Swapped,
}

/// Which of the columns of a changeover the table has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<String>);

impl Columns {
    /// Reads them. None, where there is no such table.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(
        session: &Session,
        schema: &str,
        table: &str,
        columns: &ColumnNames,
    ) -> Result<Columns, DatabaseError> {
        let asked: Vec<&str> = columns
            .all()
            .flat_map(|column| [&*column.name, &*column.staging, &*column.before])
            .collect();
        session
            .query(
                "SELECT a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = ANY ($3::text[]) AND NOT a.attisdropped",
                &[&schema, &table, &asked],
            )
            .await
            .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
            .map(Columns)
            .map_err(DatabaseError::during("looking for the columns of a changeover"))
    }

    /// Whether there is a column of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|column| column == name)
    }

    /// How far the changeover is. Where neither the column of before nor the new one is there, because a person has
    /// dropped the former, the row of the predecessor tells.
    pub fn stage(&self, columns: &ColumnNames, is_recorded: bool) -> Stage {
        let destination = &columns.destination;
        if self.has(&destination.before) || is_recorded && !self.has(&destination.staging) {
            return Stage::Swapped;
        }
        Stage::Filling
    }
}

/// How far the changeover of the job `job` with this definition is, by the catalog alone; `None` where it names no table.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn of_job(
    session: &Session,
    definition: &Definition,
    job: &JobId,
) -> Result<Option<Stage>, DatabaseError> {
    let (Some(table), Some(columns)) = (&definition.table, ColumnNames::new(definition, job))
    else {
        return Ok(None);
    };
    let found = Columns::read(session, &definition.schema, table, &columns).await?;
    Ok(Some(found.stage(&columns, false)))
}

/// The number of a column of a table, which stays when the column gets another name. `None` if there is no such column.
///
/// # Errors
/// The server's.
pub async fn number(
    session: &Session,
    table: u32,
    column: &str,
) -> Result<Option<i16>, DatabaseError> {
    session
        .query_opt(
            "SELECT attnum FROM pg_attribute WHERE attrelid = $1 AND attname = $2::text AND NOT attisdropped",
            &[&table, &column],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for a column"))
}

/// The job that has taken over the column of a job whose names these are, if one has. `successors` are those that name
/// it in `replaces`.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn find_successor<'a>(
    session: &Session,
    names: &TargetNames,
    row: &JobRow,
    successors: &'a [JobRow],
) -> Result<Option<&'a JobRow>, DatabaseError> {
    for successor in successors {
        let definition = &successor.definition;
        if successor.id == row.id || !definition.shares_columns_with(&row.definition) {
            continue;
        }
        let Some(columns) = ColumnNames::new(definition, &successor.id) else {
            continue;
        };
        let is_recorded = row.replaced_by.as_ref() == Some(&successor.id);
        let found = Columns::read(session, &names.schema, &names.table, &columns).await?;
        if found.stage(&columns, is_recorded) == Stage::Swapped {
            return Ok(Some(successor));
        }
    }
    Ok(None)
}
