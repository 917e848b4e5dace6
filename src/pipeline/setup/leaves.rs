//! Reads the partitions of a table that hold rows themselves.

use crate::pipeline::table::leaf::Leaf;
use crate::pipeline::table::source_version::SourceVersion;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// The partitions of the table with this OID that hold rows. `sources` are the columns with texts. With a slot,
/// [`Leaf::is_recent`] says which may be younger than its confirmed position.
///
/// Reads the catalog only: `pg_partition_tree` locks every partition, and would wait behind a user's ALTER TABLE
/// (`partitionfuncs.c`).
///
/// # Errors
/// The server's.
pub async fn read(
    session: &Session,
    table: u32,
    sources: &[&str],
    slot: Option<&SlotName>,
) -> Result<Vec<Leaf>, DatabaseError> {
    let failed = || DatabaseError::during("looking for partitions");
    // Asked once a second by each job on a partitioned table.
    let question = session.repeated(&statement()).await.map_err(failed())?;
    let slot = slot.map(SlotName::as_str);
    session
        .query(&question, &[&table, &slot, &sources])
        .await
        .and_then(|rows| rows.iter().map(leaf).collect())
        .map_err(failed())
}

fn leaf(row: &tokio_postgres::Row) -> Result<Leaf, tokio_postgres::Error> {
    let source: Option<&str> = row.try_get(8)?;
    Ok(Leaf {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        links: row.try_get(3)?,
        is_recent: row.try_get(4)?,
        persistence: row.try_get::<_, i8>(5)?.cast_unsigned(),
        identity: row.try_get::<_, i8>(6)?.cast_unsigned(),
        key: row.try_get(7)?,
        source: source.and_then(SourceVersion::parse),
        is_readable: row.try_get(9)?,
    })
}

/// Where partition and table have their primary keys as identity, these are of the same columns: a primary key of a
/// partitioned table is one of each partition.
fn statement() -> String {
    format!(
        "WITH RECURSIVE slot AS (SELECT max(age(catalog_xmin)) AS age FROM pg_replication_slots WHERE slot_name = $2::text), \
         tree(relid, links, recent) AS ( \
           SELECT $1::oid, '', false \
           UNION ALL \
           SELECT i.inhrelid, format('%s/%s.%s', t.links, i.inhrelid, i.xmin), \
                  t.recent OR COALESCE(age(i.xmin) BETWEEN 0 AND slot.age, false) \
           FROM tree t JOIN pg_inherits i ON i.inhparent = t.relid AND NOT i.inhdetachpending CROSS JOIN slot) \
         SELECT c.oid, n.nspname::text, c.relname::text, t.links, t.recent, c.relpersistence, c.relreplident, \
                CASE WHEN c.relreplident = 'i' OR root.relreplident = 'i' THEN {key} END, \
                {source}, has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid) \
         FROM tree t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_class root ON root.oid = $1 \
         WHERE c.relkind = 'r' AND c.oid <> root.oid",
        key = identity_columns("c"),
        source = SourceVersion::sql("c", "$3::text[]"),
    )
}

/// SQL for the names of the columns of the replica identity of the table whose `pg_class` row is `class`, if that is an
/// index; in the order of their names.
fn identity_columns(class: &str) -> String {
    format!(
        "(SELECT COALESCE(array_agg(ka.attname::text ORDER BY ka.attname), '{{}}') \
          FROM pg_index ki CROSS JOIN LATERAL unnest(ki.indkey) WITH ORDINALITY AS kk(attnum, position) \
          JOIN pg_attribute ka ON ka.attrelid = ki.indrelid AND ka.attnum = kk.attnum \
          WHERE ki.indrelid = {class}.oid AND ki.indisvalid AND ki.indimmediate AND kk.position <= ki.indnkeyatts \
            AND CASE {class}.relreplident WHEN 'i' THEN ki.indisreplident ELSE ki.indisprimary END)"
    )
}
