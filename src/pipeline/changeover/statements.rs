//! The statements of the swap: the columns exchange their names, and the new one gets what the old one has.

use crate::pipeline::changeover::names::ColumnNames;
use crate::pipeline::changeover::{attributes, indexes};
use crate::pipeline::setup::definition::TargetNames;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Reads them, in their order, for one transaction of the owner of the table. `names` are those of the table.
///
/// # Errors
/// The server's.
///
/// Cancellation safe: it only reads.
pub async fn read(
    session: &Session,
    names: &TargetNames,
    table: u32,
    columns: &ColumnNames,
) -> Result<Vec<String>, DatabaseError> {
    let mut statements = renames(names, columns);
    for column in columns.all() {
        statements.extend(attributes::statements(session, table, column).await?);
    }
    statements.extend(indexes::statements(session, table, &columns.destination).await?);
    Ok(statements)
}

fn renames(names: &TargetNames, columns: &ColumnNames) -> Vec<String> {
    let table = names.qualified();
    let rename = |from: &str, to: &str| {
        let (from, to) = (identifier(from), identifier(to));
        format!("ALTER TABLE {table} RENAME COLUMN {from} TO {to}")
    };
    columns
        .all()
        .flat_map(|column| {
            [
                rename(&column.name, &column.before),
                rename(&column.staging, &column.name),
            ]
        })
        .collect()
}
