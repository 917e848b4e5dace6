//! Looks at the target before anything is changed there, as the daemon's own role, and says what a person has to do where
//! the job cannot work.

use crate::jobs::Definition;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};

use super::error::JobError;
use super::target::{DestinationColumn, KeyColumn, SourceColumn, TargetTable, TextForm};

/// The names that a definition gives, all present.
pub struct Names {
    pub schema: String,
    pub table: String,
    pub source: String,
    pub destination: String,
    pub model: String,
}

/// Checks a definition by itself, without any server.
pub fn names(definition: &Definition) -> Result<Names, JobError> {
    let required = |value: &Option<String>, column: &str| {
        value.clone().ok_or_else(|| {
            JobError::definite(format!(
                "the job's {column} is empty; set it in the jobs table"
            ))
        })
    };
    let names = Names {
        schema: definition.schema.clone(),
        table: required(&definition.table, "\"table\"")?,
        source: required(&definition.src_column, "src_column")?,
        destination: required(&definition.dst_column, "dst_column")?,
        model: required(&definition.embedding_model, "embedding_model")?,
    };
    if names.source == names.destination {
        return Err(JobError::definite(format!(
            "src_column and dst_column are both {}; the vectors need a column of their own",
            identifier(&names.source)
        )));
    }
    if let Some(runtime) = definition
        .runtime
        .as_deref()
        .filter(|runtime| *runtime != "ort")
    {
        return Err(JobError::definite(format!(
            "the runtime {runtime:?} is not known; only \"ort\" (models in this process) is"
        )));
    }
    if definition.batch_size.is_some_and(|size| size < 1) {
        return Err(JobError::definite(
            "batch_size must be at least 1; set it to NULL for the default",
        ));
    }
    Ok(names)
}

/// Checks what replication needs of the server and the role.
pub async fn check_server(session: &Session) -> Result<(), JobError> {
    if session.version() < 140_000 {
        return Err(JobError::definite(format!(
            "the target server is PostgreSQL {}; version 14 or later is needed",
            session.version() / 10_000
        )));
    }
    let row = session
        .query_one(
            "SELECT current_setting('wal_level'), \
                    (SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user), \
                    current_user::text, current_setting('max_replication_slots')::int, \
                    (SELECT count(*) FROM pg_replication_slots)::int, pg_is_in_recovery()",
            &[],
        )
        .await
        .map_err(DatabaseError::during("checking the target server"))?;
    let wal_level: String = row.get(0);
    if wal_level != "logical" {
        return Err(JobError::definite(format!(
            "the target server has wal_level = {wal_level}; logical replication needs: ALTER SYSTEM SET wal_level = logical; and a restart of the server"
        )));
    }
    let role: String = row.get(2);
    if !row.get::<_, bool>(1) {
        return Err(JobError::definite(format!(
            "the role {role} may not replicate; run as a superuser: ALTER ROLE {} REPLICATION; (managed services grant it in their own way)",
            identifier(&role)
        )));
    }
    if row.get::<_, bool>(5) {
        return Err(JobError::definite(
            "the target server is a standby; vectors can only be written to the primary: name it in db_connection",
        ));
    }
    Ok(())
}

/// Whether one more replication slot fits on the server.
pub async fn check_free_slot(session: &Session) -> Result<(), JobError> {
    let row = session
        .query_one(
            "SELECT current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)::int",
            &[],
        )
        .await
        .map_err(DatabaseError::during("counting replication slots"))?;
    let (limit, used): (i32, i32) = (row.get(0), row.get(1));
    if used >= limit {
        return Err(JobError::definite(format!(
            "all {limit} replication slots of the server are in use; drop unused ones (SELECT * FROM pg_replication_slots) \
             or raise it: ALTER SYSTEM SET max_replication_slots = {}; and restart the server",
            limit.max(1) * 2
        )));
    }
    Ok(())
}

/// Reads the table from the catalogue. The destination is created where it is missing.
pub async fn target_table(
    session: &Session,
    names: &Names,
    definition: &Definition,
    dimensions: usize,
) -> Result<TargetTable, JobError> {
    let relation = find_relation(session, names).await?;
    let columns = columns(session, relation.oid).await?;
    let source = source_column(names, &columns, session, &relation).await?;
    let key = usable_key(session, &relation, names, definition.pk.as_deref()).await?;
    let destination = match columns
        .iter()
        .find(|column| column.name == names.destination)
    {
        Some(column) => existing_destination(session, names, column, dimensions).await?,
        None => create_destination(session, names, definition, dimensions).await?,
    };
    Ok(assemble(relation, names, key, source, destination))
}

/// As [`target_table`], for readers: nothing is created.
pub async fn existing_table(
    session: &Session,
    names: &Names,
    dimensions: usize,
) -> Result<TargetTable, JobError> {
    let relation = find_relation(session, names).await?;
    let columns = columns(session, relation.oid).await?;
    let source = source_column(names, &columns, session, &relation).await?;
    let key = usable_key(session, &relation, names, None).await?;
    let Some(column) = columns
        .iter()
        .find(|column| column.name == names.destination)
    else {
        return Err(JobError::definite(format!(
            "{}.{} has no column {} yet; the job creates it when it runs",
            identifier(&names.schema),
            identifier(&names.table),
            identifier(&names.destination)
        )));
    };
    let destination = existing_destination(session, names, column, dimensions).await?;
    Ok(assemble(relation, names, key, source, destination))
}

fn assemble(
    relation: Relation,
    names: &Names,
    key: Vec<KeyColumn>,
    source: SourceColumn,
    destination: DestinationColumn,
) -> TargetTable {
    TargetTable {
        oid: relation.oid,
        schema: names.schema.clone(),
        name: names.table.clone(),
        partitioned: relation.kind == b'p' as i8,
        key,
        identity_full: relation.identity == b'f' as i8,
        source,
        destination,
    }
}

struct Relation {
    oid: u32,
    kind: i8,
    identity: i8,
    role: String,
}

async fn find_relation(session: &Session, names: &Names) -> Result<Relation, JobError> {
    let shown = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let row = session
        .query_opt(
            "SELECT c.oid, c.relkind, c.relreplident, c.relpersistence, current_user::text \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
            &[&names.schema, &names.table],
        )
        .await
        .map_err(DatabaseError::during("looking for the target table"))?;
    let Some(row) = row else {
        return Err(JobError::definite(format!(
            "there is no table {shown} in the target database {}; create it, or correct schema and \"table\" in the jobs table \
             (names are case-sensitive there)",
            current_database(session).await
        )));
    };
    let kind: i8 = row.get(1);
    let kind_name = match kind as u8 {
        b'r' | b'p' => None,
        b'v' | b'm' => Some("a view"),
        b'f' => Some("a foreign table"),
        _ => Some("not a table"),
    };
    if let Some(kind_name) = kind_name {
        return Err(JobError::definite(format!(
            "{shown} is {kind_name}; only tables can be replicated: name the table below it"
        )));
    }
    if row.get::<_, i8>(3) as u8 != b'p' {
        return Err(JobError::definite(format!(
            "{shown} is an unlogged or temporary table, whose changes are not in the WAL; run: ALTER TABLE {shown} SET LOGGED;"
        )));
    }
    Ok(Relation {
        oid: row.get(0),
        kind,
        identity: row.get(2),
        role: row.get(4),
    })
}

async fn current_database(session: &Session) -> String {
    match session
        .query_one("SELECT current_database()::text", &[])
        .await
    {
        Ok(row) => row.get(0),
        Err(_) => String::new(),
    }
}

struct Column {
    name: String,
    base_type: String,
    base_schema: String,
    declared: String,
    modifier: i32,
    generated: bool,
    readable: bool,
    writable: bool,
    element_type: Option<String>,
}

async fn columns(session: &Session, oid: u32) -> Result<Vec<Column>, JobError> {
    let rows = session
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
                    has_column_privilege($1, a.attnum, 'UPDATE'), e.typname::text \
             FROM base b JOIN pg_attribute a ON a.attrelid = $1 AND a.attnum = b.attnum \
             JOIN pg_type t ON t.oid = b.oid JOIN pg_namespace n ON n.oid = t.typnamespace \
             LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' \
             WHERE b.typtype <> 'd' ORDER BY a.attnum",
            &[&oid],
        )
        .await
        .map_err(DatabaseError::during("reading the target table's columns"))?;
    Ok(rows
        .iter()
        .map(|row| Column {
            name: row.get(0),
            base_type: row.get(1),
            base_schema: row.get(2),
            declared: row.get(3),
            modifier: row.get(4),
            generated: row.get(5),
            readable: row.get(6),
            writable: row.get(7),
            element_type: row.get(8),
        })
        .collect())
}

async fn source_column(
    names: &Names,
    columns: &[Column],
    session: &Session,
    relation: &Relation,
) -> Result<SourceColumn, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let Some(column) = columns.iter().find(|column| column.name == names.source) else {
        let present: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(JobError::definite(format!(
            "the table {table} has no column {} (src_column); it has {}",
            identifier(&names.source),
            present.join(", ")
        )));
    };
    if !column.readable {
        return Err(JobError::definite(format!(
            "the role {role} may not read {table}.{column}; run as its owner: GRANT SELECT ON {table} TO {role_quoted};",
            role = relation.role,
            role_quoted = identifier(&relation.role),
            column = identifier(&names.source),
        )));
    }
    let hidden: bool = session
        .query_one("SELECT row_security_active($1::oid)", &[&relation.oid])
        .await
        .map_err(DatabaseError::during("checking row security"))?
        .get(0);
    if hidden {
        return Err(JobError::definite(format!(
            "row level security of {table} applies to the role {role}, so rows may be hidden from it; run as a superuser: ALTER ROLE {} BYPASSRLS;",
            identifier(&relation.role),
            role = relation.role,
        )));
    }
    let form = match (column.base_schema.as_str(), column.base_type.as_str()) {
        ("pg_catalog", "text" | "varchar") | (_, "citext") => TextForm::Plain,
        ("pg_catalog", "bpchar") => TextForm::BlankPadded,
        _ => TextForm::Output,
    };
    Ok(SourceColumn {
        name: column.name.clone(),
        form,
        published: !column.generated,
    })
}

/// The columns of the replica identity, or the remedy where updates of the table could not be published.
async fn usable_key(
    session: &Session,
    relation: &Relation,
    names: &Names,
    pk: Option<&str>,
) -> Result<Vec<KeyColumn>, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let rows = session
        .query(
            "SELECT i.indisreplident, i.indisprimary, a.attname::text, format_type(a.atttypid, -1) \
             FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE i.indrelid = $1 AND i.indisvalid AND i.indimmediate AND i.indisunique \
               AND (i.indisprimary OR i.indisreplident) AND k.position <= i.indnkeyatts \
             ORDER BY i.indisreplident DESC, k.position",
            &[&relation.oid],
        )
        .await
        .map_err(DatabaseError::during("reading the key of the target table"))?;
    let columns_where = |flag: usize| -> Vec<KeyColumn> {
        rows.iter()
            .filter(|row| row.get::<_, bool>(flag))
            .map(|row| KeyColumn {
                name: row.get(2),
                type_name: row.get(3),
            })
            .collect()
    };
    let (by_identity, primary) = (columns_where(0), columns_where(1));
    let key = match relation.identity as u8 {
        b'd' | b'f' => primary,
        b'i' => by_identity,
        _ if !primary.is_empty() => {
            return Err(JobError::definite(format!(
                "{table} has REPLICA IDENTITY NOTHING: publishing it would make every UPDATE of it fail; run: ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"
            )));
        }
        _ => Vec::new(),
    };
    if key.is_empty() {
        return Err(JobError::definite(
            no_key_remedy(session, relation.oid, &table).await?,
        ));
    }
    if let Some(pk) = pk {
        let mut asked: Vec<&str> = pk.split(',').map(str::trim).collect();
        let mut found: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        asked.sort_unstable();
        found.sort_unstable();
        if asked != found {
            return Err(JobError::definite(format!(
                "the job's pk is {}, but the key of {table} is ({}); correct pk or set it to NULL",
                literal(pk),
                found.join(", ")
            )));
        }
    }
    Ok(key)
}

async fn no_key_remedy(session: &Session, oid: u32, table: &str) -> Result<String, JobError> {
    // A unique index over NOT NULL columns can serve as it is.
    let index = session
        .query_opt(
            "SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
               AND NOT EXISTS (SELECT FROM unnest(i.indkey) k JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k \
                               WHERE NOT a.attnotnull) ORDER BY c.relname LIMIT 1",
            &[&oid],
        )
        .await
        .map_err(DatabaseError::during("looking for a unique index"))?;
    // A deferrable primary key cannot be a replica identity, and a table has only one primary key.
    let deferrable = session
        .query_opt(
            "SELECT con.conname::text, array_agg(a.attname::text ORDER BY k.position) \
             FROM pg_constraint con CROSS JOIN LATERAL unnest(con.conkey) WITH ORDINALITY AS k(attnum, position) \
             JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum \
             WHERE con.conrelid = $1 AND con.contype = 'p' AND con.condeferrable GROUP BY con.oid, con.conname",
            &[&oid],
        )
        .await
        .map_err(DatabaseError::during("looking for a deferrable primary key"))?;
    let has_id: bool = session
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = $1 AND attname = 'id' AND NOT attisdropped)",
            &[&oid],
        )
        .await
        .map_err(DatabaseError::during("reading the target table's columns"))?
        .get(0);
    let remedy = match (index, deferrable) {
        (Some(row), _) => {
            format!(
                "ALTER TABLE {table} REPLICA IDENTITY USING INDEX {};",
                identifier(&row.get::<_, String>(0))
            )
        }
        (None, Some(row)) => format!(
            "ALTER TABLE {table} DROP CONSTRAINT {}, ADD PRIMARY KEY ({});",
            identifier(&row.get::<_, String>(0)),
            row.get::<_, Vec<String>>(1)
                .iter()
                .map(|column| identifier(column))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        (None, None) if has_id => format!("ALTER TABLE {table} ADD PRIMARY KEY (id);"),
        (None, None) => format!(
            "ALTER TABLE {table} ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
        ),
    };
    Ok(format!(
        "{table} has no usable key: a primary key or a replica identity index is needed, not deferrable; run: {remedy}"
    ))
}

async fn existing_destination(
    session: &Session,
    names: &Names,
    column: &Column,
    dimensions: usize,
) -> Result<DestinationColumn, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let name = identifier(&column.name);
    if column.generated {
        return Err(JobError::definite(format!(
            "{table}.{name} (dst_column) is a generated column, which nobody can write"
        )));
    }
    let declared = match (column.base_type.as_str(), column.element_type.as_deref()) {
        ("vector" | "halfvec", _) => (column.modifier > 0).then_some(column.modifier),
        (_, Some("float4" | "float8")) => None,
        _ => {
            return Err(JobError::definite(format!(
                "{table}.{name} (dst_column) has the type {}; vectors go into vector, halfvec, REAL[] or DOUBLE PRECISION[]",
                column.declared
            )));
        }
    };
    if let Some(declared) = declared.filter(|declared| usize::try_from(*declared) != Ok(dimensions))
    {
        return Err(JobError::definite(format!(
            "{table}.{name} holds vectors of {declared} dimensions, but the model {} makes {dimensions}; choose another model, or run: \
             ALTER TABLE {table} ALTER COLUMN {name} TYPE {}({dimensions}) USING NULL;",
            names.model, column.base_type
        )));
    }
    let vector_schema = matches!(column.base_type.as_str(), "vector" | "halfvec")
        .then(|| column.base_schema.clone());
    if !column.writable {
        let role: String = session
            .query_one("SELECT current_user::text", &[])
            .await
            .map_err(DatabaseError::during("reading the role"))?
            .get(0);
        return Err(JobError::definite(format!(
            "the role {role} may not write {table}.{name}; run as its owner: GRANT UPDATE ({name}) ON {table} TO {};",
            identifier(&role)
        )));
    }
    Ok(DestinationColumn {
        name: column.name.clone(),
        type_name: column.declared.clone(),
        vector_schema,
    })
}

async fn create_destination(
    session: &Session,
    names: &Names,
    definition: &Definition,
    dimensions: usize,
) -> Result<DestinationColumn, JobError> {
    let table = format!("{}.{}", identifier(&names.schema), identifier(&names.table));
    let name = identifier(&names.destination);
    let extension: Option<String> = session
        .query_opt(
            "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
            &[],
        )
        .await
        .map_err(DatabaseError::during("looking for pgvector"))?
        .map(|row| row.get(0));
    let type_name = match (definition.column_type.as_deref(), &extension) {
        (Some(asked), _) => asked_type(asked, extension.as_deref(), dimensions)?,
        (None, Some(schema)) => format!("{}.vector({dimensions})", identifier(schema)),
        (None, None) => "real[]".to_string(),
    };
    let statement = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {type_name}");
    super::ddl::run(session, &statement)
        .await
        .map_err(|error| error.with_remedy(format!("create the column yourself: {statement};")))?;
    tracing::info!("created the column {table}.{name} {type_name}");
    let vector_schema = extension.filter(|_| type_name.contains("vec"));
    Ok(DestinationColumn {
        name: names.destination.clone(),
        type_name,
        vector_schema,
    })
}

/// `column_type` of the jobs table is a type name, never SQL: only the known ones are taken.
fn asked_type(asked: &str, extension: Option<&str>, dimensions: usize) -> Result<String, JobError> {
    let normal = asked.trim().to_ascii_lowercase().replace(' ', "");
    let (base, modifier) = match normal.split_once('(') {
        Some((base, modifier)) => (base, modifier.strip_suffix(')')),
        None => (normal.as_str(), None),
    };
    if let Some(modifier) = modifier.filter(|modifier| *modifier != dimensions.to_string()) {
        return Err(JobError::definite(format!(
            "the job's column_type is {asked}, but the model makes {dimensions} dimensions, not {modifier}"
        )));
    }
    match base {
        "real[]" | "float4[]" => Ok("real[]".into()),
        "doubleprecision[]" | "float8[]" => Ok("double precision[]".into()),
        "vector" | "halfvec" => match extension {
            Some(schema) => Ok(format!("{}.{base}({dimensions})", identifier(schema))),
            None => Err(JobError::definite(format!(
                "the job's column_type is {asked}, but pgvector is not installed in the target database; run: CREATE EXTENSION vector; or set column_type to REAL[]"
            ))),
        },
        _ => Err(JobError::definite(format!(
            "the job's column_type {asked:?} is not known; use vector, halfvec, REAL[] or DOUBLE PRECISION[]"
        ))),
    }
}

/// Whether the table can still be published without harm; asked again and again while a job streams, because a dropped
/// key would make the user's own updates fail (see [`super::watchdog`]).
pub async fn identity_covers(
    session: &Session,
    table: &TargetTable,
) -> Result<bool, DatabaseError> {
    let row = session
        .query_opt(
            "SELECT c.relreplident, COALESCE((SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_index i \
                CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position) \
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND k.position <= i.indnkeyatts \
                  AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END), '{}'::text[]) \
             FROM pg_class c WHERE c.oid = $1",
            &[&table.oid],
        )
        .await
        .map_err(DatabaseError::during("checking the replica identity"))?;
    // A dropped table harms nobody; the stream or the next write-back reports it.
    let Some(row) = row else { return Ok(true) };
    let identity = row.get::<_, i8>(0) as u8;
    let columns: Vec<String> = row.get(1);
    let mut expected: Vec<&str> = table
        .key
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    expected.sort_unstable();
    let key_intact = columns.iter().map(String::as_str).eq(expected);
    Ok(match identity {
        b'f' => table.identity_full && key_intact,
        b'd' | b'i' => !table.identity_full && key_intact,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_type_is_a_type_and_never_sql() {
        assert_eq!(asked_type("REAL[]", None, 3).unwrap(), "real[]");
        assert_eq!(
            asked_type("double precision[]", None, 3).unwrap(),
            "double precision[]"
        );
        assert_eq!(
            asked_type("Vector(3)", Some("ext"), 3).unwrap(),
            "\"ext\".vector(3)"
        );
        assert!(asked_type("vector(4)", Some("ext"), 3).is_err());
        assert!(
            asked_type("vector", None, 3)
                .unwrap_err()
                .to_string()
                .contains("CREATE EXTENSION vector")
        );
        assert!(asked_type("int; DROP TABLE x", None, 3).is_err());
    }
}
