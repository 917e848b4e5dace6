//! Where a job that replaces another one writes now: into a column beside the other's until the swap, and then into the
//! column that both name.

use crate::jobs::{Definition, InitProgress, JobRow};
use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::changeover::stage::{Columns, Stage};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::postgres::{DatabaseError, Session};

/// What a job works on now.
#[derive(Clone)]
pub struct Place {
    /// The names of its table and columns.
    pub names: TargetNames,
    /// Its definition, with the columns that it writes now. Slots go by the definition of the row.
    pub definition: Definition,
    /// The changeover that is under way, if one is.
    pub changeover: Option<Changeover>,
}

/// A changeover that has not come to its swap.
#[derive(Clone)]
pub struct Changeover {
    /// Its columns.
    pub columns: ColumnNames,
    /// The job that is replaced; `None` once its row is gone.
    pub predecessor: Option<JobRow>,
}

impl Place {
    /// That of a job that replaces none, or has done so.
    pub fn ordinary(names: TargetNames, definition: &Definition) -> Self {
        Place {
            names,
            definition: definition.clone(),
            changeover: None,
        }
    }

    /// That of the job `row`, which replaces `predecessor`.
    ///
    /// # Errors
    /// Permanent where the two do not fit together, with what to correct; and the server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn of_successor(
        session: &Session,
        names: TargetNames,
        row: &JobRow,
        predecessor: Option<JobRow>,
    ) -> Result<Place, JobError> {
        let definition = &row.definition;
        let Some(columns) = ColumnNames::new(definition, &row.id) else {
            return Ok(Place::ordinary(names, definition));
        };
        let found = Columns::read(session, &names.schema, &names.table, &columns).await?;
        let is_recorded = match &predecessor {
            Some(other) => other.replaced_by.as_ref() == Some(&row.id),
            // A job is not deleted before it is replaced, as a rule.
            None => row.progress != InitProgress::New,
        };
        if found.stage(&columns, is_recorded) == Stage::Swapped {
            return Ok(Place::ordinary(names, definition));
        }
        check_pair(row, predecessor.as_ref())?;
        let mut staged = with_new_columns(definition, &columns);
        if staged.column_type.is_none() {
            staged.column_type = old_type(session, &names).await?;
        }
        let names = TargetNames {
            destination_in_fingerprints: names.destination,
            ..TargetNames::from_definition(&staged)?
        };
        Ok(Place {
            names,
            definition: staged,
            changeover: Some(Changeover {
                columns,
                predecessor,
            }),
        })
    }
}

/// The definition with the columns that a job of this row writes now, as far as the catalog tells.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn written_definition(
    session: &Session,
    row: &JobRow,
) -> Result<Definition, DatabaseError> {
    let definition = &row.definition;
    let columns = ColumnNames::new(definition, &row.id);
    let (Some(_), Some(table), Some(columns)) = (&definition.replaces, &definition.table, columns)
    else {
        return Ok(definition.clone());
    };
    let found = Columns::read(session, &definition.schema, table, &columns).await?;
    let is_filling =
        found.has(&columns.destination.staging) && found.stage(&columns, false) == Stage::Filling;
    Ok(match is_filling {
        true => with_new_columns(definition, &columns),
        false => definition.clone(),
    })
}

fn with_new_columns(definition: &Definition, columns: &ColumnNames) -> Definition {
    let fingerprint = columns.fingerprint.as_ref();
    Definition {
        dst_column: Some(columns.destination.staging.clone()),
        fingerprint_column: fingerprint.map(|column| column.staging.clone()),
        ..definition.clone()
    }
}

/// Whether the one can replace the other.
fn check_pair(row: &JobRow, predecessor: Option<&JobRow>) -> Result<(), JobError> {
    let id = &row.id;
    let named = row.definition.replaces.as_ref();
    let named = named.map_or("", |named| named.as_str());
    if named == id.as_str() {
        return Err(JobError::permanent(format!(
            "replaces of job {id} names the job itself; name the job whose column it is to take over"
        )));
    }
    if !row.definition.backfill {
        return Err(JobError::permanent(format!(
            "job {id} is to replace job {named}, for which every row needs a vector; set backfill to NULL"
        )));
    }
    match predecessor {
        None if row.progress == InitProgress::New => Err(JobError::permanent(format!(
            "job {id} is to replace job {named}, and the jobs table has no such job; correct replaces"
        ))),
        Some(other) if is_replaced_by_another(other, row) => {
            let by = other.replaced_by.as_ref().map_or("", |by| by.as_str());
            Err(JobError::permanent(format!(
                "job {id} is to replace job {named}, and job {named} was replaced by job {by}: name that one in replaces"
            )))
        }
        Some(other) if !row.definition.shares_columns_with(&other.definition) => {
            Err(JobError::permanent(format!(
                "job {id} is to replace job {named}, so both must name the same db_connection, schema, \"table\", \
                 src_column, dst_column and fingerprint_column; job {named} is {}",
                other.definition
            )))
        }
        _ => Ok(()),
    }
}

fn is_replaced_by_another(predecessor: &JobRow, row: &JobRow) -> bool {
    let by = predecessor.replaced_by.as_ref();
    by.is_some_and(|by| *by != row.id)
}

/// The type of the old column as `column_type` names it, without dimensions. `None` if there is no such column.
async fn old_type(session: &Session, names: &TargetNames) -> Result<Option<String>, DatabaseError> {
    let found: Option<String> = session
        .query_opt(
            "SELECT COALESCE(b.typname, t.typname)::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid \
             LEFT JOIN pg_type b ON b.oid = t.typbasetype \
             WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3::text AND NOT a.attisdropped",
            &[&names.schema, &names.table, &names.destination],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("reading the type of the old column"))?;
    let kind = found.as_deref().and_then(|name| match name {
        "vector" | "halfvec" => Some(name),
        "_float4" => Some("real[]"),
        "_float8" => Some("double precision[]"),
        _ => None,
    });
    Ok(kind.map(str::to_owned))
}
