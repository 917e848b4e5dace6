//! A table and its partitions, as an index meets them.
//!
//! A partitioned table holds no rows, and CREATE INDEX CONCURRENTLY does not work on it. So each partition gets an
//! index of its own, then each partitioned table one `ON ONLY` itself, from the leaves up, to which those of its
//! partitions are attached. With the last one it becomes valid (PostgreSQL manual, "CREATE INDEX", notes). From then on
//! new partitions get their index by themselves.

use crate::postgres::answer::all;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// A table, or a partition of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePart {
    /// The OID in `pg_class`.
    pub oid: u32,
    /// As the catalog has it, not quoted.
    pub schema: String,
    /// As the catalog has it, not quoted.
    pub name: String,
    /// It has partitions, and holds no rows itself.
    pub is_partitioned: bool,
    /// The partitioned table that it is a direct partition of; `None` for the table of the job.
    pub parent: Option<u32>,
}

impl TablePart {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

/// The table with this OID and all below it, the deepest first.
///
/// # Errors
/// The server's.
pub async fn read(session: &Session, table: u32) -> Result<Vec<TablePart>, DatabaseError> {
    let found: Vec<(u32, String, String, bool, Option<u32>)> = session
        .query(
            "WITH RECURSIVE tree(relid, parent, level) AS ( \
               SELECT $1::oid, NULL::oid, 0 \
               UNION ALL \
               SELECT i.inhrelid, i.inhparent, t.level + 1 FROM tree t JOIN pg_class p ON p.oid = t.relid AND p.relkind = 'p' \
               JOIN pg_inherits i ON i.inhparent = t.relid AND NOT i.inhdetachpending) \
             SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p', t.parent \
             FROM tree t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') ORDER BY t.level DESC, c.relname",
            &[&table],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("looking for partitions to index"))?;
    let part = |(oid, schema, name, is_partitioned, parent)| TablePart {
        oid,
        schema,
        name,
        is_partitioned,
        parent,
    };
    Ok(found.into_iter().map(part).collect())
}
