//! Objects that know the old column by its number, and not by its name: they would go on with the old vectors after the
//! swap, and say nothing.
//!
//! A view, a rule, a policy, a generated column, a constraint, a trigger `UPDATE OF`, a function with an SQL-standard
//! body, a publication with a column list (PostgreSQL manual, "Dependency Tracking"). What is stored as text, such as a
//! function in PL/pgSQL, finds columns by their names. Indexes stay with their column, as they should.

use crate::pipeline::error::JobError;
use crate::postgres::{DatabaseError, Session};

/// How many are named in a message.
const MAX_NAMED: usize = 5;

/// Whole relations (`pg_class`) are indexes, and sequences that a column owns; before PostgreSQL 15 a generated column is
/// one of `pg_class`, too, and later one of `pg_attrdef`. The default of a column depends on the column itself. Our own
/// publications list fingerprints. From PostgreSQL 18 on NOT NULL is a constraint, which the swap looks after.
const STATEMENT: &str = "WITH RECURSIVE tree (oid) AS ( \
       SELECT $1::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid), \
     columns AS (SELECT a.attrelid, a.attnum FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid \
       WHERE a.attname = ANY ($2::text[]) AND NOT a.attisdropped) \
     SELECT DISTINCT COALESCE(CASE WHEN v.relkind IN ('v', 'm') THEN pg_describe_object('pg_class'::regclass, v.oid, 0) \
            WHEN f.oid IS NOT NULL THEN pg_describe_object('pg_class'::regclass, f.adrelid, f.adnum) \
            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END, '?') AS description \
     FROM columns c JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.attrelid \
       AND d.refobjsubid = c.attnum \
     LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid \
     LEFT JOIN pg_class v ON v.oid = r.ev_class \
     LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid \
     LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid \
     LEFT JOIN pg_publication_rel l ON d.classid = 'pg_publication_rel'::regclass AND l.oid = d.objid \
     LEFT JOIN pg_publication p ON p.oid = l.prpubid \
     WHERE d.classid <> 'pg_statistic_ext'::regclass AND (d.classid <> 'pg_class'::regclass OR d.objsubid <> 0) \
       AND (f.oid IS NULL OR f.adrelid <> c.attrelid OR f.adnum <> c.attnum) \
       AND (k.oid IS NULL OR k.contype <> 'n') \
       AND (p.oid IS NULL OR p.pubname !~ '^lantern_[0-9a-f]{8}_') \
     ORDER BY 1";

/// Describes the objects that know these columns of a table by number, as the server does: `view articles_by_day`.
///
/// # Errors
/// The server's.
pub async fn find(
    session: &Session,
    table: u32,
    columns: &[&str],
) -> Result<Vec<String>, DatabaseError> {
    session
        .query(STATEMENT, &[&table, &columns])
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during(
            "looking for objects that depend on a column",
        ))
}

/// Why the swap waits for a person, in words; `None` where nothing depends on the columns.
///
/// # Errors
/// The server's.
pub async fn refusal(
    session: &Session,
    table: u32,
    columns: &[&str],
) -> Result<Option<String>, JobError> {
    let found = find(session, table, columns).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let named: Vec<&str> = found.iter().take(MAX_NAMED).map(String::as_str).collect();
    let more = match found.len() > MAX_NAMED {
        true => ", …",
        false => "",
    };
    Ok(Some(format!(
        "what depends on the old column would keep it, and so the old vectors: {}{more}; drop it, and create it again once \
         the new column has its name",
        named.join(", ")
    )))
}
