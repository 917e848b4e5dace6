//! The table and its columns as the catalog has them.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::postgres::answer::{all, columns};
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::pgoutput::ReplicaIdentity;
use crate::similar::most_similar;

/// Tables among which one of a similar name is looked for.
const MAX_CANDIDATES: i64 = 10_000;

/// What a table is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableUse {
    /// Its changes are followed by a job.
    Followed,
    /// Its rows are embedded once, without a stream.
    Once,
}

/// A table that can be embedded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRelation {
    /// The OID in `pg_class`.
    pub oid: u32,
    /// Whether it is a partitioned table.
    pub partitioned: bool,
    /// The OIDs of the partitioned tables that it is a partition of.
    pub ancestors: Vec<u32>,
    /// What updates of it write into the WAL to name the old row.
    pub identity: ReplicaIdentity,
}

impl TargetRelation {
    /// Whether the whole old row names a row.
    pub fn has_identity_full(&self) -> bool {
        self.identity == ReplicaIdentity::Full
    }
}

/// A column of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetColumn {
    /// Not quoted.
    pub name: String,
    /// The name of its type, or of the type below its domain: `text`, `vector`, `_float4`.
    pub base_type: String,
    /// The schema of that type.
    pub base_schema: String,
    /// Whether the role may use that schema.
    pub base_usable: bool,
    /// Its declared type with the modifier, as a cast names it.
    pub declared: String,
    /// The modifier of the base type, -1 where there is none. That of `vector` is the number of dimensions.
    pub modifier: i32,
    /// `GENERATED ALWAYS AS (…)`.
    pub generated: bool,
    /// `GENERATED ALWAYS AS (…) VIRTUAL`, from PostgreSQL 18 on.
    pub virtually_generated: bool,
    /// Whether the role may SELECT it.
    pub readable: bool,
    /// Whether the role may UPDATE it.
    pub writable: bool,
    /// The name of the element type of an array.
    pub element_type: Option<String>,
    /// Declared NOT NULL, as itself or by its domain.
    pub not_null: bool,
}

impl TargetColumn {
    /// Whether its values are OIDs of database objects that print as the objects' names (PostgreSQL manual, "Object
    /// Identifier Types").
    pub fn holds_object_names(&self) -> bool {
        let is_alias = |name: &str| name.starts_with("reg");
        self.base_schema == "pg_catalog"
            && (is_alias(&self.base_type) || self.element_type.as_deref().is_some_and(is_alias))
    }
}

/// The column of this name.
pub fn find_column<'a>(columns: &'a [TargetColumn], name: &str) -> Option<&'a TargetColumn> {
    columns.iter().find(|column| column.name == name)
}

/// Finds the table of a job.
///
/// # Errors
/// [`JobError::TableMissing`]; permanent ones if it cannot be replicated, or if its changes are not in the WAL, as far
/// as the use of the table needs that; and the server's.
pub async fn find_relation(
    session: &Session,
    names: &TargetNames,
    table_use: TableUse,
) -> Result<TargetRelation, JobError> {
    let table = names.qualified();
    let found: Option<(u32, i8, i8, i8, Vec<u32>)> = session
        .query_opt(
            "SELECT c.oid, c.relkind, c.relreplident, c.relpersistence, \
                    ARRAY(SELECT a.relid::oid FROM pg_partition_ancestors(c.oid) a WHERE a.relid <> c.oid) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
            &[&names.schema, &names.table],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during("looking for the target table"))?;
    let Some((oid, kind, identity, persistence, ancestors)) = found else {
        return Err(JobError::TableMissing(format!(
            "there is no table {table} in the target database {}; create it, or correct {}{}",
            session.server().database(),
            table_use.place_of_names(&names.table),
            similar_table(session, names)
                .await?
                .map_or_else(String::new, |meant| format!("; did you mean {meant}?"))
        )));
    };
    let kind = kind as u8;
    check_kind(&table, kind, table_use)?;
    check_schema(names)?;
    check_persistence(&table, persistence as u8, table_use)?;
    Ok(TargetRelation {
        oid,
        partitioned: kind == b'p',
        ancestors,
        identity: match identity as u8 {
            b'd' => ReplicaIdentity::Default,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => ReplicaIdentity::Nothing,
        },
    })
}

/// The table that was most likely meant, quoted: one of another name in the schema, or of the same name in another one.
async fn similar_table(
    session: &Session,
    names: &TargetNames,
) -> Result<Option<String>, DatabaseError> {
    let tables: Vec<(String, String)> = session
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' \
               AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
             ORDER BY n.nspname = $1 DESC, n.nspname, c.relname LIMIT $2",
            &[&names.schema, &MAX_CANDIDATES],
        )
        .await
        .and_then(|rows| all(&rows))
        .map_err(DatabaseError::during("looking for a table of a similar name"))?;
    Ok(meant_table(&tables, names))
}

/// The one of these tables that was most likely meant, each by its schema and its name.
fn meant_table(tables: &[(String, String)], names: &TargetNames) -> Option<String> {
    let shown = |schema: &str, table: &str| format!("{}.{}", identifier(schema), identifier(table));
    // The name may have been given with its schema, or in quotes.
    let unquoted = names.table.replace('"', "");
    let last = unquoted.rsplit('.').next().unwrap_or_default();
    let is_qualified =
        |(schema, table): &&(String, String)| format!("{schema}.{table}") == unquoted;
    let is_named = |(_, table): &&(String, String)| *table == names.table || table == last;
    let elsewhere = tables.iter().find(is_qualified);
    if let Some((schema, table)) = elsewhere.or_else(|| tables.iter().find(is_named)) {
        return Some(shown(schema, table));
    }
    let beside = tables.iter().filter(|(schema, _)| *schema == names.schema);
    let beside = beside.map(|(_, table)| table.as_str());
    let meant = most_similar(&names.table, beside.clone()).or_else(|| most_similar(last, beside));
    meant.map(|table| shown(&names.schema, table))
}

impl TableUse {
    /// Where a person has named the table, and in which form; `name` is the one of a table that is not there.
    fn place_of_names(self, name: &str) -> String {
        let place = match self {
            TableUse::Followed => "schema and \"table\" in the jobs table",
            TableUse::Once => "--schema and --table",
        };
        let form = match name.contains(['"', '.']) {
            true => ", and a table's is written without quotes and without its schema",
            false => "",
        };
        format!("{place} (names are case-sensitive there{form})")
    }
}

/// `kind` is `pg_class.relkind`. Publications hold tables and partitioned tables only (PostgreSQL manual, "CREATE
/// PUBLICATION"), and only these have keys.
fn check_kind(table: &str, kind: u8, table_use: TableUse) -> Result<(), JobError> {
    let kind_name = match kind {
        b'r' | b'p' => return Ok(()),
        b'v' => "a view",
        b'm' => "a materialized view",
        b'f' => "a foreign table",
        _ => "not a table",
    };
    let verb = match table_use {
        TableUse::Followed => "replicated",
        TableUse::Once => "embedded",
    };
    Err(JobError::permanent(format!(
        "{table} is {kind_name}; only tables can be {verb}: name the table below it"
    )))
}

/// Catalogs are neither published nor written by UPDATE (PostgreSQL manual, "System Catalogs").
fn check_schema(names: &TargetNames) -> Result<(), JobError> {
    let is_of_system =
        ["pg_catalog", "information_schema", "pg_toast"].contains(&names.schema.as_str());
    match is_of_system {
        false => Ok(()),
        true => Err(JobError::permanent(format!(
            "{} is a table of the system; name a table of your own",
            names.qualified()
        ))),
    }
}

/// `persistence` is `pg_class.relpersistence`.
fn check_persistence(table: &str, persistence: u8, table_use: TableUse) -> Result<(), JobError> {
    match (table_use, persistence) {
        (_, b'p') | (TableUse::Once, b'u') => Ok(()),
        (TableUse::Followed, _) => Err(JobError::permanent(format!(
            "{table} is an unlogged or temporary table, whose changes are not in the WAL; \
             run: ALTER TABLE {table} SET LOGGED;"
        ))),
        (TableUse::Once, _) => Err(JobError::permanent(format!(
            "{table} is a temporary table, which only the session that has created it can read; copy it: \
             CREATE TABLE … AS TABLE {table};"
        ))),
    }
}

/// Reads the columns of a table, in their order.
///
/// A column may have a domain over a domain. What decides how its values look is the type at the bottom, which the
/// recursive query finds.
///
/// # Errors
/// The server's.
pub async fn read_columns(session: &Session, oid: u32) -> Result<Vec<TargetColumn>, DatabaseError> {
    session
        .query(
            "WITH RECURSIVE base AS ( \
               SELECT a.attnum, t.oid, t.typtype, t.typbasetype, a.atttypmod AS modifier, t.typtypmod \
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
               WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
               UNION ALL \
               SELECT b.attnum, t.oid, t.typtype, t.typbasetype, b.typtypmod, t.typtypmod \
               FROM base b JOIN pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd') \
             SELECT a.attname::text, t.typname::text, n.nspname::text, format_type(a.atttypid, a.atttypmod), b.modifier, \
                    a.attgenerated <> '', has_column_privilege($1, a.attnum, 'SELECT'), \
                    has_column_privilege($1, a.attnum, 'UPDATE'), e.typname::text, \
                    a.attnotnull OR EXISTS (SELECT FROM pg_type d WHERE d.oid = a.atttypid AND d.typnotnull), \
                    a.attgenerated = 'v', has_schema_privilege(n.oid, 'USAGE') \
             FROM base b JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = b.attnum \
             JOIN pg_type t ON t.oid = b.oid JOIN pg_namespace n ON n.oid = t.typnamespace \
             LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' \
             WHERE b.typtype <> 'd' ORDER BY a.attnum",
            &[&oid],
        )
        .await
        .and_then(|rows| rows.iter().map(column).collect())
        .map_err(DatabaseError::during("reading the target table's columns"))
}

fn column(row: &tokio_postgres::Row) -> Result<TargetColumn, tokio_postgres::Error> {
    Ok(TargetColumn {
        name: row.try_get(0)?,
        base_type: row.try_get(1)?,
        base_schema: row.try_get(2)?,
        declared: row.try_get(3)?,
        modifier: row.try_get(4)?,
        generated: row.try_get(5)?,
        readable: row.try_get(6)?,
        writable: row.try_get(7)?,
        element_type: row.try_get(8)?,
        not_null: row.try_get(9)?,
        virtually_generated: row.try_get(10)?,
        base_usable: row.try_get(11)?,
    })
}
