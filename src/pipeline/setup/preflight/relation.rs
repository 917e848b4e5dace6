//! The table and its columns as the catalogue has them.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::Names;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) kind: i8,
    pub(super) identity: i8,
    pub(super) role: String,
}

pub(super) async fn find_relation(session: &Session, names: &Names) -> Result<Relation, JobError> {
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
        return Err(JobError::permanent(format!(
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
        return Err(JobError::permanent(format!(
            "{shown} is {kind_name}; only tables can be replicated: name the table below it"
        )));
    }
    if row.get::<_, i8>(3) as u8 != b'p' {
        return Err(JobError::permanent(format!(
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

pub(super) async fn current_database(session: &Session) -> String {
    match session
        .query_one("SELECT current_database()::text", &[])
        .await
    {
        Ok(row) => row.get(0),
        Err(_) => String::new(),
    }
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) base_type: String,
    pub(super) base_schema: String,
    pub(super) declared: String,
    pub(super) modifier: i32,
    pub(super) generated: bool,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) element_type: Option<String>,
}

pub(super) async fn columns(session: &Session, oid: u32) -> Result<Vec<Column>, JobError> {
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
