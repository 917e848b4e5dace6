//! The questions before a build: is there an index that serves, may this role build one, and does pgvector know it?

use crate::pipeline::error::JobError;
use crate::pipeline::index::catalog::{self, VectorIndex};
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};

/// The valid index of the table that serves the job.
///
/// # Errors
/// The server's.
pub async fn find(
    session: &Session,
    target: &TargetTable,
    wanted: &WantedIndex,
) -> Result<Option<VectorIndex>, DatabaseError> {
    let indexes = catalog::read(session, target.written().oid, &target.destination.name).await?;
    let serves = |index: &VectorIndex| index.is_valid && wanted.is_served_by(index);
    Ok(indexes.into_iter().find(serves))
}

/// Whether the role of the session has the rights of the table's owner.
///
/// # Errors
/// The server's.
pub async fn is_owner(session: &Session, table: u32) -> Result<bool, DatabaseError> {
    session
        .query_one(
            "SELECT COALESCE((SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1), false)",
            &[&table],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during("looking for the owner of the table"))
}

/// What only the owner of the table can do.
pub fn for_the_owner(target: &TargetTable, wanted: &WantedIndex) -> String {
    let written = target.written();
    let (name, table) = (wanted.name(written.name), written.qualified());
    let statement = match written.partitioned {
        true => wanted.create(&name, &table),
        false => wanted.create_concurrently(&name, &table),
    };
    format!(
        "only the owner of {table} can create its index; once the initial backfill is finished, let the owner run: \
         {statement};"
    )
}

/// pgvector has got its types and distances one after the other.
///
/// # Errors
/// Permanent where the installed version has not what the index needs, and the server's.
pub async fn check_operator_class(session: &Session, wanted: &WantedIndex) -> Result<(), JobError> {
    let (name, schema) = (wanted.operator_class(), &wanted.vector_schema);
    let exists: bool = session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace \
               JOIN pg_am m ON m.oid = o.opcmethod \
             WHERE m.amname = 'hnsw' AND o.opcname = $1 AND n.nspname = $2)",
            &[&name, schema],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(
            "looking for the operator class of the index",
        ))?;
    match exists {
        true => Ok(()),
        false => Err(JobError::permanent(format!(
            "the pgvector of this database has no operator class {name} for hnsw; install a newer version on the server \
             and run: ALTER EXTENSION vector UPDATE;"
        ))),
    }
}
