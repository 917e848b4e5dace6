//! The table for passages. One that exists must fit the job, and one that does not must be possible to create.
//!
//! A table that does not look like one of passages is never written to: the job says what differs, and how to mend it
//! where that is possible.

use crate::jobs::chunk_table::ChunkTableName;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::columns::destination_type;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::destination::usable_destination;
use crate::pipeline::setup::preflight::privileges::check_type_usable;
use crate::pipeline::setup::preflight::relation::{TargetColumn, find_column, read_columns};
use crate::pipeline::setup::row_access::Sessions;
use crate::pipeline::table::passages::{COLUMNS, SEQ};
use crate::pipeline::table::target::{DestinationColumn, KeyColumn};
use crate::postgres::answer::{all, columns};
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// A table for passages that fits its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChunkTable {
    /// The OID in `pg_class`.
    pub oid: u32,
    /// The column for the vectors.
    pub destination: DestinationColumn,
}

/// A column as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Not quoted.
    pub name: String,
    /// The type with its modifier, as SQL.
    pub kind: String,
    /// The collation, quoted, where it is not that of the type.
    pub collation: Option<String>,
}

impl Declaration {
    /// The type with its collation.
    pub fn sql(&self) -> String {
        match &self.collation {
            Some(collation) => format!("{} COLLATE {collation}", self.kind),
            None => self.kind.clone(),
        }
    }
}

/// A look at the table for passages of a job.
#[derive(Clone, Copy)]
pub struct ChunkTableLook<'a> {
    /// A session that may read the catalog.
    pub session: &'a Session,
    /// The names of the job.
    pub names: &'a TargetNames,
    /// The name of the table.
    pub table: &'a ChunkTableName,
    /// The table with the texts.
    pub source: u32,
    /// All of its columns.
    pub columns: &'a [TargetColumn],
    /// Its key.
    pub key: &'a [KeyColumn],
    /// The dimensions of the model, where they are known.
    pub dimensions: Option<usize>,
}

impl ChunkTableLook<'_> {
    /// The table, if it exists and fits.
    ///
    /// # Errors
    /// Permanent where it does not fit, with what differs; and the server's.
    pub async fn find(self) -> Result<Option<FoundChunkTable>, JobError> {
        self.check_names()?;
        let Some(relation) = find_relation(self.session, self.table).await? else {
            return Ok(None);
        };
        let shown = self.table.qualified();
        relation.check(&shown)?;
        let found = read_columns(self.session, relation.oid).await?;
        self.check_columns(&found, relation.oid).await?;
        let of_passages = self.names.of_chunk_table(self.table);
        let destination = find_column(&found, &self.names.destination);
        let destination = destination.expect("columns that are missing were refused");
        check_type_usable(self.session, &of_passages, destination).await?;
        let destination = usable_destination(&of_passages, destination, self.dimensions)?;
        self.check_key(relation.oid).await?;
        self.check_required(relation.oid).await?;
        Ok(Some(FoundChunkTable {
            oid: relation.oid,
            destination,
        }))
    }

    /// No column of the key has the name of a column of passages.
    fn check_names(self) -> Result<(), JobError> {
        let is_taken = |column: &&KeyColumn| {
            column.name == self.names.destination
                || COLUMNS.iter().any(|(name, _)| *name == column.name)
        };
        let Some(column) = self.key.iter().find(is_taken) else {
            return Ok(());
        };
        let (table, column) = (self.names.qualified(), identifier(&column.name));
        Err(JobError::permanent(format!(
            "the key column {column} of {table} has the name of a column of {} (chunk_table); rename it: ALTER TABLE {table} \
             RENAME COLUMN {column} TO …;",
            self.table.qualified()
        )))
    }

    /// The columns that a table of passages has, with their types.
    async fn expected(self) -> Result<Vec<Expected>, JobError> {
        let key = declare_key(self.session, self.source, self.key).await?;
        let key = key.into_iter().map(|column| {
            let source = find_column(self.columns, &column.name);
            Expected {
                base: source.map(|source| (source.base_schema.clone(), source.base_type.clone())),
                column,
            }
        });
        let of_passages = COLUMNS.iter().map(|(name, kind)| Expected {
            base: Some(("pg_catalog".into(), base_name(kind).into())),
            column: Declaration {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                collation: None,
            },
        });
        Ok(key.chain(of_passages).collect())
    }

    /// All columns are there, with their types.
    async fn check_columns(self, found: &[TargetColumn], oid: u32) -> Result<(), JobError> {
        let expected = self.expected().await?;
        let table = self.table.qualified();
        if !COLUMNS
            .iter()
            .any(|(name, _)| find_column(found, name).is_some())
        {
            return Err(JobError::permanent(format!(
                "{table} (chunk_table) has none of the columns of passages, so it is a table of something else; name one \
                 that does not exist, and the job creates it"
            )));
        }
        let declared = declare_columns(self.session, oid).await?;
        let mut differences = Vec::new();
        let mut remedies = Vec::new();
        for expected in &expected {
            let column = &expected.column;
            let (name, declaration) = (identifier(&column.name), column.sql());
            let Some(there) = find_column(found, &column.name) else {
                differences.push(format!("it lacks {name} {declaration}"));
                remedies.push(format!("ADD COLUMN {name} {declaration}"));
                continue;
            };
            if there.generated {
                differences.push(format!("{name} is a generated column"));
                remedies.push(format!(
                    "DROP COLUMN {name}, ADD COLUMN {name} {declaration}"
                ));
                continue;
            }
            let declared = declared
                .iter()
                .find(|declared| declared.name == column.name);
            let collation = declared.and_then(|declared| declared.collation.as_deref());
            if !expected.is_met_by(there, collation) {
                let shown = declared.map_or_else(|| there.declared.clone(), Declaration::sql);
                differences.push(format!("{name} is {shown} and not {declaration}"));
                remedies.push(format!(
                    "ALTER COLUMN {name} TYPE {declaration} USING {name}::{}",
                    column.kind
                ));
            }
        }
        if find_column(found, &self.names.destination).is_none() {
            let name = identifier(&self.names.destination);
            let kind = destination_type(self.session, None, self.dimensions).await?;
            differences.push(format!("it lacks {name} (dst_column)"));
            remedies.push(format!("ADD COLUMN {name} {kind}"));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(JobError::permanent(format!(
            "{table} (chunk_table) does not fit the job: {}; name another table in chunk_table, or run: ALTER TABLE {table} \
             {};",
            differences.join(", "),
            remedies.join(", ")
        )))
    }

    /// Key and place find one passage, by an index that leads with the key.
    async fn check_key(self, oid: u32) -> Result<(), JobError> {
        let mut wanted: Vec<&str> = self.key.iter().map(|column| column.name.as_str()).collect();
        wanted.push(SEQ);
        let (is_unique, has_primary): (bool, bool) = self
            .session
            .query_one(KEY_INDEX, &[&oid, &wanted])
            .await
            .and_then(|row| columns(&row))
            .map_err(DatabaseError::during(
                "reading the key of the table for passages",
            ))?;
        if is_unique {
            return Ok(());
        }
        let table = self.table.qualified();
        let list: Vec<String> = wanted.iter().map(|name| identifier(name)).collect();
        let list = list.join(", ");
        let remedy = match has_primary {
            true => format!("CREATE UNIQUE INDEX ON {table} ({list});"),
            false => format!("ALTER TABLE {table} ADD PRIMARY KEY ({list});"),
        };
        Err(JobError::permanent(format!(
            "{table} (chunk_table) has no unique index of {list}, by which passages are found; run: {remedy}"
        )))
    }

    /// No further column demands a value that a passage does not have.
    async fn check_required(self, oid: u32) -> Result<(), JobError> {
        let mut known: Vec<&str> = self.key.iter().map(|column| column.name.as_str()).collect();
        known.extend(COLUMNS.iter().map(|(name, _)| *name));
        known.push(&self.names.destination);
        let demanding: Option<String> = self
            .session
            .query_opt(DEMANDING, &[&oid, &known])
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(DatabaseError::during(
                "reading the columns of the table for passages",
            ))?;
        let Some(column) = demanding else {
            return Ok(());
        };
        let (table, column) = (self.table.qualified(), identifier(&column));
        Err(JobError::permanent(format!(
            "the column {column} of {table} (chunk_table) needs a value, and passages have none for it; run: ALTER TABLE \
             {table} ALTER COLUMN {column} DROP NOT NULL;"
        )))
    }
}

/// Whether there is a unique index of the columns `$2`, the last of which is the place, and whether there is a primary key.
const KEY_INDEX: &str = "SELECT COALESCE(bool_or(i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL \
         AND i.indexprs IS NULL AND i.indnkeyatts = cardinality($2::text[]) AND k.names @> $2::text[] \
         AND k.names[i.indnkeyatts] = ($2::text[])[cardinality($2::text[])]), false), COALESCE(bool_or(i.indisprimary), false) \
     FROM pg_index i CROSS JOIN LATERAL ( \
       SELECT array_agg(a.attname::text ORDER BY n.place) AS names \
       FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS n(attnum, place) \
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = n.attnum WHERE n.place <= i.indnkeyatts) k \
     WHERE i.indrelid = $1";

/// A column besides those in `$2` that is NOT NULL and gets no value by itself.
const DEMANDING: &str = "SELECT a.attname::text FROM pg_attribute a \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef \
       AND a.attidentity = '' AND NOT a.attname = ANY ($2::text[]) ORDER BY a.attnum LIMIT 1";

/// A column that a table of passages has.
struct Expected {
    column: Declaration,
    /// Schema and name of the type below its domains.
    base: Option<(String, String)>,
}

impl Expected {
    /// Whether a column takes every value of this one, and compares as it does.
    fn is_met_by(&self, found: &TargetColumn, collation: Option<&str>) -> bool {
        let base = (found.base_schema.clone(), found.base_type.clone());
        let takes_all = found.declared == self.column.kind
            || found.modifier == -1 && self.base.as_ref() == Some(&base);
        takes_all && self.column.collation.as_deref() == collation
    }
}

/// The catalog's name of a type of [`COLUMNS`].
fn base_name(kind: &str) -> &str {
    match kind {
        "integer" => "int4",
        other => other,
    }
}

/// The key columns of a table, as a table of its passages has them.
///
/// A column has the collation of the key's index, so that an index of passages finds what that of the key finds.
///
/// # Errors
/// The server's.
pub async fn declare_key(
    session: &Session,
    source: u32,
    key: &[KeyColumn],
) -> Result<Vec<Declaration>, DatabaseError> {
    let found = declare_columns(session, source).await?;
    let declaration = |column: &KeyColumn| {
        let declared = found
            .iter()
            .find(|found| found.name == column.name)
            .cloned();
        declared.map(|declared| Declaration {
            collation: column.collation.clone().or(declared.collation),
            ..declared
        })
    };
    Ok(key.iter().filter_map(declaration).collect())
}

/// All columns of a table, in their order.
///
/// # Errors
/// The server's.
pub async fn declare_columns(
    session: &Session,
    table: u32,
) -> Result<Vec<Declaration>, DatabaseError> {
    session
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), \
                    CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN format('%I.%I', cn.nspname, co.collname) END \
             FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             LEFT JOIN pg_collation co ON co.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace \
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[&table],
        )
        .await
        .and_then(|rows| all(&rows))
        .map(|rows| {
            let declaration = |(name, kind, collation)| Declaration {
                name,
                kind,
                collation,
            };
            rows.into_iter().map(declaration).collect()
        })
        .map_err(DatabaseError::during("reading the columns of a key"))
}

/// A relation as the catalog has it.
struct Relation {
    oid: u32,
    kind: u8,
    persistence: u8,
    is_partition: bool,
    hides_rows: bool,
    role: String,
}

async fn find_relation(
    session: &Session,
    table: &ChunkTableName,
) -> Result<Option<Relation>, DatabaseError> {
    let found: Option<(u32, i8, i8, bool, bool, String)> = session
        .query_opt(
            "SELECT c.oid, c.relkind, c.relpersistence, c.relispartition, row_security_active(c.oid), current_user::text \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
            &[&table.schema, &table.table],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during("looking for the table for passages"))?;
    let relation = |(oid, kind, persistence, is_partition, hides_rows, role): (
        u32,
        i8,
        i8,
        bool,
        bool,
        String,
    )| Relation {
        oid,
        kind: kind.cast_unsigned(),
        persistence: persistence.cast_unsigned(),
        is_partition,
        hides_rows,
        role,
    };
    Ok(found.map(relation))
}

impl Relation {
    /// It is an ordinary table, all of whose rows the role sees.
    fn check(&self, table: &str) -> Result<(), JobError> {
        let other = match self.kind {
            b'r' if self.is_partition => Some("a partition"),
            b'r' => None,
            b'p' => Some("a partitioned table"),
            b'v' => Some("a view"),
            b'm' => Some("a materialized view"),
            b'f' => Some("a foreign table"),
            _ => Some("not a table"),
        };
        if let Some(other) = other {
            return Err(JobError::permanent(format!(
                "{table} (chunk_table) is {other}, and passages need an ordinary table; name one that does not exist, and the \
                 job creates it"
            )));
        }
        if self.persistence != b'p' {
            return Err(JobError::permanent(format!(
                "{table} (chunk_table) is an unlogged or temporary table, which a crash empties; run: ALTER TABLE {table} SET \
                 LOGGED;"
            )));
        }
        if self.hides_rows {
            return Err(JobError::permanent(format!(
                "row level security of {table} (chunk_table) applies to the role {}, so passages may be hidden from it; run as \
                 a superuser: ALTER ROLE {} BYPASSRLS;",
                self.role,
                identifier(&self.role)
            )));
        }
        Ok(())
    }
}

/// Checks that the roles may read and write the table for passages with this OID.
///
/// # Errors
/// Permanent, with the GRANT; and the server's.
pub async fn check_rights(
    session: &Session,
    table: &ChunkTableName,
    oid: u32,
) -> Result<(), JobError> {
    let (may_use_schema, lacking, role): (bool, Vec<String>, String) = session
        .query_one(
            "SELECT has_schema_privilege(c.relnamespace, 'USAGE'), \
                    ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS r(p, place) \
                          WHERE NOT has_table_privilege(c.oid, p) ORDER BY place), current_user::text \
             FROM pg_class c WHERE c.oid = $1",
            &[&oid],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("checking rights on the table for passages"))?;
    let (shown, quoted) = (table.qualified(), identifier(&role));
    let mut grants = Vec::new();
    if !may_use_schema {
        let schema = identifier(&table.schema);
        grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {quoted};"));
    }
    if !lacking.is_empty() {
        grants.push(format!(
            "GRANT {} ON {shown} TO {quoted};",
            lacking.join(", ")
        ));
    }
    match grants.is_empty() {
        true => Ok(()),
        false => Err(JobError::permanent(format!(
            "the role {role} may not read and write {shown} (chunk_table); run as its owner: {}",
            grants.join(" ")
        ))),
    }
}

/// Checks that the role of the stream may create the table, and that of rows reach it.
///
/// # Errors
/// Permanent, with the CREATE SCHEMA or GRANT; and the server's.
pub async fn check_creatable(
    sessions: Sessions<'_>,
    table: &ChunkTableName,
) -> Result<(), JobError> {
    let (shown, schema) = (table.qualified(), identifier(&table.schema));
    let (role, stream) = schema_rights(sessions.stream, &table.schema).await?;
    let Some(stream) = stream else {
        return Err(JobError::permanent(format!(
            "there is no schema {schema} for {shown} (chunk_table); correct chunk_table, or run: CREATE SCHEMA {schema} \
             AUTHORIZATION {};",
            identifier(&role)
        )));
    };
    if !(stream.may_use && stream.may_create) {
        return Err(JobError::permanent(format!(
            "the role {role} may not create {shown} (chunk_table); run as the owner of the schema: GRANT USAGE, CREATE ON SCHEMA \
             {schema} TO {};",
            identifier(&role)
        )));
    }
    if sessions.are_two()
        && let (role, Some(SchemaRights { may_use: false, .. })) =
            schema_rights(sessions.rows, &table.schema).await?
    {
        return Err(JobError::permanent(format!(
            "the role {role} (write_connection) may not use the schema of {shown} (chunk_table); run as the owner of the \
             schema: GRANT USAGE ON SCHEMA {schema} TO {};",
            identifier(&role)
        )));
    }
    Ok(())
}

/// What a role may do in a schema.
struct SchemaRights {
    may_use: bool,
    may_create: bool,
}

/// The role of the session, and what it may do in a schema; `None` where there is no such schema.
async fn schema_rights(
    session: &Session,
    schema: &str,
) -> Result<(String, Option<SchemaRights>), DatabaseError> {
    let (role, may_use, may_create): (String, Option<bool>, Option<bool>) = session
        .query_one(
            "SELECT current_user::text, has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE') \
             FROM (VALUES (1)) one LEFT JOIN pg_namespace n ON n.nspname = $1",
            &[&schema],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("looking at the schema of the table for passages"))?;
    let rights = may_use
        .zip(may_create)
        .map(|(may_use, may_create)| SchemaRights {
            may_use,
            may_create,
        });
    Ok((role, rights))
}

/// Whether row level security decides who may read the rows of a table.
///
/// # Errors
/// The server's.
pub async fn has_row_security(session: &Session, table: u32) -> Result<bool, DatabaseError> {
    session
        .query_opt(
            "SELECT relrowsecurity FROM pg_class WHERE oid = $1",
            &[&table],
        )
        .await
        .and_then(|row| row.map_or(Ok(false), |row| row.try_get(0)))
        .map_err(DatabaseError::during("checking row security"))
}
