//! The key: what names a row in the stream, and what keeps a published table updatable.
//!
//! A table whose updates are published needs a replica identity, or each UPDATE of it fails, the users' too (PostgreSQL
//! manual, "Publication", on replica identities; `CheckCmdReplicaIdentity` in `execReplication.c`). By default it is
//! the primary key. Our key is the replica identity: its columns are in every message of the stream, and they find one
//! row.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::relation::{
    TableUse, TargetColumn, TargetRelation, find_column,
};
use crate::pipeline::table::target::{KeyColumn, KeyOperators};
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session, answer};
use crate::replication::pgoutput::ReplicaIdentity;

/// The columns of the key, in the order of its index.
///
/// # Errors
/// Permanent, with a statement that gives the table a key; and the server's.
pub async fn usable_key(
    session: &Session,
    names: &TargetNames,
    relation: &TargetRelation,
    columns: &[TargetColumn],
    table_use: TableUse,
) -> Result<Vec<KeyColumn>, JobError> {
    let (key, needed) = match table_use {
        TableUse::Followed => (
            followed_key(session, names, relation, columns).await?,
            NEEDED,
        ),
        TableUse::Once => (
            unique_key(session, relation.oid, columns).await?,
            NEEDED_ONCE,
        ),
    };
    if !key.is_empty() {
        check_names(names, &key, columns)?;
        return Ok(key);
    }
    let remedy = remedy(session, names, relation, columns).await?;
    Err(JobError::permanent(format!(
        "{} has no usable key; it needs {needed}; run: {remedy}",
        names.qualified()
    )))
}

/// The key that a stream needs.
const NEEDED: &str = "a primary key or a replica identity index, not deferrable";
/// The key that finds a row.
const NEEDED_ONCE: &str = "a primary key, or a unique index of columns that are NOT NULL";

/// The key by which the stream names rows; empty if there is none.
async fn followed_key(
    session: &Session,
    names: &TargetNames,
    relation: &TargetRelation,
    columns: &[TargetColumn],
) -> Result<Vec<KeyColumn>, JobError> {
    let candidates = read_candidates(session, relation.oid, columns).await?;
    Ok(match relation.identity {
        ReplicaIdentity::Index => candidates.identity,
        // FULL writes the whole old row into the WAL, and does not say which columns find one row. The primary key
        // does.
        ReplicaIdentity::Default | ReplicaIdentity::Full => candidates.primary,
        ReplicaIdentity::Nothing if !candidates.primary.is_empty() => {
            let table = names.qualified();
            return Err(JobError::permanent(format!(
                "{table} has REPLICA IDENTITY NOTHING: publishing it would make every UPDATE of it fail; \
                 run: ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"
            )));
        }
        ReplicaIdentity::Nothing => Vec::new(),
    })
}

/// A key that finds one row; empty if there is none. Whatever the replica identity is, and deferrable or not: rows that
/// violate it for a moment are not committed.
async fn unique_key(
    session: &Session,
    table: u32,
    columns: &[TargetColumn],
) -> Result<Vec<KeyColumn>, JobError> {
    let statement = format!("{KEY_COLUMNS} AND i.indexrelid = ({UNIQUE_INDEX}) {KEY_ORDER}");
    let key = session.query(&statement, &[&table]).await;
    let key = key.and_then(|rows| rows.iter().map(|row| key_column(row, columns)).collect());
    Ok(key.map_err(failed())?)
}

/// The best index of the table `$1` that finds one row.
const UNIQUE_INDEX: &str = "SELECT u.indexrelid FROM pg_index u \
     WHERE u.indrelid = $1 AND u.indisunique AND u.indisvalid AND u.indpred IS NULL AND u.indexprs IS NULL \
       AND NOT EXISTS (SELECT FROM unnest(u.indkey) WITH ORDINALITY AS k (attnum, place) \
                       JOIN pg_attribute a ON a.attrelid = u.indrelid AND a.attnum = k.attnum \
                       WHERE k.place <= u.indnkeyatts AND NOT a.attnotnull) \
     ORDER BY u.indisprimary DESC, u.indisreplident DESC, u.indimmediate DESC, u.indexrelid LIMIT 1";

fn failed() -> impl FnOnce(tokio_postgres::Error) -> DatabaseError {
    DatabaseError::during("reading the key of the target table")
}

/// Checks that the job's `pk` names the columns of the key, in any order. Without a `pk` any key will do.
///
/// # Errors
/// Permanent, with the columns of the key.
pub fn check_pk(names: &TargetNames, key: &[KeyColumn], pk: Option<&str>) -> Result<(), JobError> {
    let Some(pk) = pk else { return Ok(()) };
    let mut asked: Vec<&str> = pk.split(',').map(str::trim).collect();
    let mut found: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
    asked.sort_unstable();
    found.sort_unstable();
    if asked == found {
        return Ok(());
    }
    Err(JobError::permanent(format!(
        "the job's pk is {}, but the key of {} is ({}); correct pk or set it to NULL",
        literal(pk),
        names.qualified(),
        found.join(", ")
    )))
}

/// The keys that a table may have.
#[derive(Default)]
struct Candidates {
    /// The columns of the index that REPLICA IDENTITY USING INDEX names.
    identity: Vec<KeyColumn>,
    primary: Vec<KeyColumn>,
}

/// Reads the columns of the primary key and of the replica identity index, without those that are only INCLUDEd.
async fn read_candidates(
    session: &Session,
    table: u32,
    columns: &[TargetColumn],
) -> Result<Candidates, DatabaseError> {
    let statement = format!("{KEY_COLUMNS} AND {STREAMABLE} {KEY_ORDER}");
    session
        .query(&statement, &[&table])
        .await
        .and_then(|rows| {
            let mut found = Candidates::default();
            for row in &rows {
                let column = key_column(row, columns)?;
                if row.try_get(0)? {
                    found.identity.push(column.clone());
                }
                if row.try_get(1)? {
                    found.primary.push(column);
                }
            }
            Ok(found)
        })
        .map_err(failed())
}

/// The columns of keys with what their indexes compare by. A B-tree has its operators in strategies 1, 3, 4 and 5 of the
/// operator class (PostgreSQL manual, "Interfacing Extensions to Indexes"). Another index, as that of a key WITHOUT
/// OVERLAPS, has none of these, and its types have the usual ones.
const KEY_COLUMNS: &str = "SELECT i.indisreplident, i.indisprimary, a.attname::text, format_type(a.atttypid, -1), \
       CASE WHEN k.collated NOT IN (0, a.attcollation) THEN format('%I.%I', cn.nspname, co.collname) END, \
       o.schema, o.names \
     FROM pg_index i \
     CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) \
                        WITH ORDINALITY AS k(attnum, class, collated, position) \
     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
     LEFT JOIN pg_collation co ON co.oid = k.collated LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace \
     LEFT JOIN LATERAL ( \
       SELECT min(n.nspname::text) AS schema, array_agg(p.oprname::text ORDER BY m.amopstrategy) AS names \
       FROM pg_opclass c JOIN pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree' \
       JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype \
                     AND m.amopstrategy IN (1, 3, 4, 5) \
       JOIN pg_operator p ON p.oid = m.amopopr JOIN pg_namespace n ON n.oid = p.oprnamespace \
       WHERE c.oid = k.class HAVING count(*) = 4 AND count(DISTINCT n.oid) = 1) o ON true \
     WHERE i.indrelid = $1 AND i.indisvalid AND i.indisunique AND k.position <= i.indnkeyatts";

/// Indexes that can name rows in a stream.
const STREAMABLE: &str = "i.indimmediate AND (i.indisprimary OR i.indisreplident)";

/// The order of [`KEY_COLUMNS`].
const KEY_ORDER: &str = "ORDER BY i.indisreplident DESC, k.position";

/// A column of the key, from a row of [`KEY_COLUMNS`].
fn key_column(
    row: &tokio_postgres::Row,
    columns: &[TargetColumn],
) -> Result<KeyColumn, tokio_postgres::Error> {
    let (name, type_name): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let schema: Option<String> = row.try_get(5)?;
    let names: Option<Vec<String>> = row.try_get(6)?;
    let operators = match (schema, names.as_deref()) {
        (Some(schema), Some([less, equal, at_least, greater])) => {
            KeyOperators::new(&schema, [less, equal, at_least, greater])
        }
        _ => KeyOperators::of_the_system(),
    };
    let base_type = match find_column(columns, &name) {
        Some(column) => format!(
            "{}.{}",
            identifier(&column.base_schema),
            identifier(&column.base_type)
        ),
        None => type_name.clone(),
    };
    Ok(KeyColumn {
        name,
        type_name,
        base_type,
        collation: row.try_get(4)?,
        operators,
    })
}

/// Refuses keys whose values are names of objects. The stream and SQL print the names that the objects have at that
/// moment, so a renamed or dropped object takes its rows' keys with it.
fn check_names(
    names: &TargetNames,
    key: &[KeyColumn],
    columns: &[TargetColumn],
) -> Result<(), JobError> {
    let of_objects = key
        .iter()
        .filter_map(|part| find_column(columns, &part.name))
        .find(|column| column.holds_object_names());
    let Some(column) = of_objects else {
        return Ok(());
    };
    Err(JobError::permanent(format!(
        "the key column {} has the type {}, whose values change with the names of database objects; give {} a key of \
         another type, such as oid: ALTER TABLE {} ALTER COLUMN {} TYPE oid;",
        names.qualified_column(&column.name),
        column.declared,
        names.qualified(),
        names.qualified(),
        identifier(&column.name),
    )))
}

/// The statement that gives the table a key, and changes as little as possible.
async fn remedy(
    session: &Session,
    names: &TargetNames,
    relation: &TargetRelation,
    columns: &[TargetColumn],
) -> Result<String, DatabaseError> {
    let table = names.qualified();
    if let Some(index) = suitable_index(session, relation.oid).await? {
        let index = identifier(&index);
        return Ok(format!(
            "ALTER TABLE {table} REPLICA IDENTITY USING INDEX {index};"
        ));
    }
    if let Some((constraint, columns)) = deferrable_primary_key(session, relation.oid).await? {
        let columns: Vec<String> = columns.iter().map(|column| identifier(column)).collect();
        return Ok(format!(
            "ALTER TABLE {table} DROP CONSTRAINT {}, ADD PRIMARY KEY ({});",
            identifier(&constraint),
            columns.join(", ")
        ));
    }
    if find_column(columns, "id").is_some() {
        return Ok(format!("ALTER TABLE {table} ADD PRIMARY KEY (id);"));
    }
    Ok(format!(
        "ALTER TABLE {table} ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
    ))
}

/// An index that can be the replica identity as it is: unique, not partial, not deferrable, and over NOT NULL columns
/// only (PostgreSQL manual, "ALTER TABLE", REPLICA IDENTITY).
async fn suitable_index(session: &Session, table: u32) -> Result<Option<String>, DatabaseError> {
    session
        .query_opt(
            "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
               AND NOT EXISTS (SELECT FROM unnest(i.indkey) k JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k \
                               WHERE NOT a.attnotnull) ORDER BY c.relname LIMIT 1",
            &[&table],
        )
        .await
        .and_then(|row| row.map(|row| row.try_get(0)).transpose())
        .map_err(DatabaseError::during("looking for a unique index"))
}

/// The constraint and columns of a deferrable primary key. It cannot be the replica identity, because it may be
/// violated until commit; and a table has only one primary key, so it must be replaced.
async fn deferrable_primary_key(
    session: &Session,
    table: u32,
) -> Result<Option<(String, Vec<String>)>, DatabaseError> {
    session
        .query_opt(
            "SELECT con.conname::text, array_agg(a.attname::text ORDER BY k.position) \
             FROM pg_constraint con CROSS JOIN LATERAL unnest(con.conkey) WITH ORDINALITY AS k(attnum, position) \
             JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum \
             WHERE con.conrelid = $1 AND con.contype = 'p' AND con.condeferrable GROUP BY con.oid, con.conname",
            &[&table],
        )
        .await
        .and_then(|row| row.as_ref().map(answer::columns).transpose())
        .map_err(DatabaseError::during("looking for a deferrable primary key"))
}
