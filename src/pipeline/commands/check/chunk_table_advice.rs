//! What a person should know of the chunk table of a job, though it keeps no job from starting.

use super::storage::{MANY_ROWS, Storage};
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// Adds the advice on the chunk table with this OID. A question that fails is a point of its own.
pub(super) async fn give(points: &mut Points, session: &Session, names: &TargetNames, oid: u32) {
    let title = "passages stored";
    let storage = match Storage::read(session, oid).await {
        Ok(storage) => storage,
        Err(error) => return points.add(title, Outcome::Unknown(error.to_string())),
    };
    let table = names.written();
    if let Some(advice) = storage.advise_on_autovacuum(&table, "passages") {
        points.add("autovacuum", advice);
    }
    if names.index.is_some() || storage.rows < MANY_ROWS {
        return;
    }
    match is_indexed(session, oid, &names.destination).await {
        Ok(true) => {}
        Ok(false) => points.add("index", Outcome::Advice(without_index(names, &table))),
        Err(error) => points.add("index", Outcome::Unknown(error.to_string())),
    }
}

fn without_index(names: &TargetNames, table: &str) -> String {
    format!(
        "none on {table}.{}: each search compares all passages; set create_index to hnsw in the jobs table, and the daemon \
         builds one beside its work",
        identifier(&names.destination)
    )
}

/// Whether an index of pgvector is there for the column, or cannot be: none has arrays.
async fn is_indexed(session: &Session, oid: u32, column: &str) -> Result<bool, DatabaseError> {
    session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam \
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = $2::text \
               WHERE i.indrelid = $1 AND i.indisvalid AND m.amname NOT IN ('btree', 'hash', 'gin', 'gist', 'brin', 'spgist') \
                 AND (a.attnum = ANY (i.indkey::int2[]) OR i.indexprs IS NOT NULL)) \
             OR EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
               WHERE a.attrelid = $1 AND a.attname = $2::text AND t.typcategory = 'A')",
            &[&oid, &column],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("looking for an index of the passages"))
}
