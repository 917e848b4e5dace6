//! Generated columns under REPLICA IDENTITY FULL.
//!
//! From PostgreSQL 18 on, UPDATE of a published table fails if its replica identity has generated columns that are not
//! published (`pub_contains_invalid_column` in `publicationcmds.c`), and FULL has all columns. Stored ones are published
//! where the publication says `publish_generated_columns = stored`, as ours does. Virtual ones are never published.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{TargetColumn, TargetRelation};
use crate::postgres::quote::identifier;

/// Checks that publishing the table does not make every UPDATE of it fail.
///
/// # Errors
/// Permanent, with the remedy.
pub fn check_generated(
    names: &TargetNames,
    relation: &TargetRelation,
    columns: &[TargetColumn],
) -> Result<(), JobError> {
    let mut generated = columns.iter().filter(|column| column.virtually_generated);
    match generated.next() {
        Some(column) if relation.has_identity_full() => Err(JobError::permanent(
            virtual_under_full(&names.qualified(), &column.name),
        )),
        _ => Ok(()),
    }
}

/// Why a table, or a partition, cannot be published. `table` is its name, quoted; `column` is not quoted.
pub fn virtual_under_full(table: &str, column: &str) -> String {
    format!(
        "{table} has REPLICA IDENTITY FULL and the virtual generated column {}: publishing it would make every UPDATE of it \
         fail; run: ALTER TABLE {table} REPLICA IDENTITY DEFAULT;",
        identifier(column)
    )
}
