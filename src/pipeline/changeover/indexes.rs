//! The names of the indexes that the daemon has built. They follow from that of the column, by which a daemon finds them
//! again, so they are renamed with it. Indexes of the users keep their names.

use std::collections::BTreeSet;

use crate::pipeline::changeover::names::ColumnName;
use crate::pipeline::index::parts;
use crate::pipeline::index::wanted::index_name;
use crate::pipeline::table::distance::Distance;
use crate::postgres::answer::all;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// An index that may be there, and its name after the swap.
struct Rename {
    table: u32,
    from: String,
    to: String,
}

/// The statements that rename them. Where the new name is taken, the index keeps its own.
///
/// # Errors
/// The server's.
pub async fn statements(
    session: &Session,
    table: u32,
    column: &ColumnName,
) -> Result<Vec<String>, DatabaseError> {
    let parts = parts::read(session, table).await?;
    // The old ones first: they leave their names to the new ones.
    let pairs = [
        (&column.name, &column.before),
        (&column.staging, &column.name),
    ];
    let renames: Vec<Rename> = pairs
        .iter()
        .flat_map(|(from, to)| {
            parts.iter().flat_map(move |part| {
                Distance::ALL.map(|distance| Rename {
                    table: part.oid,
                    from: index_name(&part.name, from, distance),
                    to: index_name(&part.name, to, distance),
                })
            })
        })
        .collect();
    let there = existing(session, &renames).await?;
    let mut freed = BTreeSet::new();
    let mut statements = Vec::new();
    for (place, schema, is_taken) in there {
        let Some(rename) = usize::try_from(place - 1)
            .ok()
            .and_then(|place| renames.get(place))
        else {
            continue;
        };
        let to = (schema.clone(), rename.to.clone());
        if is_taken && !freed.contains(&to) {
            continue;
        }
        freed.insert((schema.clone(), rename.from.clone()));
        statements.push(format!(
            "ALTER INDEX {}.{} RENAME TO {}",
            identifier(&schema),
            identifier(&rename.from),
            identifier(&rename.to)
        ));
    }
    Ok(statements)
}

/// Of each that is there: its place in the list, its schema, and whether that has an object of the new name.
async fn existing(
    session: &Session,
    renames: &[Rename],
) -> Result<Vec<(i64, String, bool)>, DatabaseError> {
    let tables: Vec<u32> = renames.iter().map(|rename| rename.table).collect();
    let from: Vec<&str> = renames.iter().map(|rename| &*rename.from).collect();
    let to: Vec<&str> = renames.iter().map(|rename| &*rename.to).collect();
    session
        .query(
            "SELECT r.place, n.nspname::text, \
                    EXISTS (SELECT FROM pg_class t WHERE t.relnamespace = c.relnamespace AND t.relname = r.new) \
             FROM unnest($1::oid[], $2::text[], $3::text[]) WITH ORDINALITY AS r (relid, old, new, place) \
             JOIN pg_index i ON i.indrelid = r.relid JOIN pg_class c ON c.oid = i.indexrelid AND c.relname = r.old \
             JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY r.place",
            &[&tables, &from, &to],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("looking for the indexes of a column"))
}
