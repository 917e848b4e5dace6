//! What a column has besides its values: privileges, a comment, a statistics target, a way to be stored. What users gave
//! the old column, the new one gets.

use crate::pipeline::changeover::names::ColumnName;
use crate::postgres::answer::columns;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};

/// The table `$1` and all that inherit from it, with schema and name. `$2` is the old column, `$3` the new one.
const TREE: &str = "WITH RECURSIVE tree (oid) AS ( \
       SELECT $1::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid), \
     pair AS (SELECT c.oid, c.relowner, format('%I.%I', n.nspname, c.relname) AS called, o.attnum AS old, w.attnum AS new, \
       o.attacl, o.attnotnull, o.atthasdef, o.attstattarget AS target, w.attstattarget AS new_target \
       FROM tree JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace \
       JOIN pg_attribute o ON o.attrelid = c.oid AND o.attname = $2::text AND NOT o.attisdropped \
       JOIN pg_attribute w ON w.attrelid = c.oid AND w.attname = $3::text AND NOT w.attisdropped)";

/// Statements to be run once the new column has the name `$4`, and the old one the name `$5`.
///
/// The old column gets no values any more, so it can have neither NOT NULL nor a default.
const AFTER_SWAP: &str = "SELECT statement FROM ( \
     SELECT 1, p.oid, format('GRANT %s (%I) ON TABLE %s TO %s%s', x.privilege_type, $4::text, p.called, \
         CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END, \
         CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
       FROM pair p CROSS JOIN LATERAL aclexplode(p.attacl) x LEFT JOIN pg_roles r ON r.oid = x.grantee \
       WHERE x.grantee <> p.relowner AND (x.grantee = 0 OR r.oid IS NOT NULL) \
     UNION ALL SELECT 2, p.oid, format('COMMENT ON COLUMN %s.%I IS %L', p.called, $4::text, col_description(p.oid, p.old)) \
       FROM pair p WHERE col_description(p.oid, p.old) IS NOT NULL AND col_description(p.oid, p.new) IS NULL \
     UNION ALL SELECT 3, p.oid, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STATISTICS %s', p.called, $4::text, p.target) \
       FROM pair p WHERE p.target >= 0 AND COALESCE(p.new_target, -1) < 0 \
     UNION ALL SELECT 4, p.oid, format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', p.called, $5::text) \
       FROM pair p WHERE p.attnotnull \
     UNION ALL SELECT 5, p.oid, format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', p.called, $5::text) \
       FROM pair p WHERE p.atthasdef \
     ) AS all_of_them (place, oid, statement) ORDER BY place, oid <> $1::oid, oid, statement";

/// The statements that give the new column what the old one has. To be read before the swap, and run after it.
///
/// # Errors
/// The server's.
pub async fn statements(
    session: &Session,
    table: u32,
    column: &ColumnName,
) -> Result<Vec<String>, DatabaseError> {
    let ColumnName {
        name,
        staging,
        before,
    } = column;
    session
        .query(
            &format!("{TREE} {AFTER_SWAP}"),
            &[&table, name, staging, name, before],
        )
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(DatabaseError::during(
            "reading the privileges and settings of a column",
        ))
}

/// The statement by which values of the new column are stored as those of the old one, if the two have one type and differ
/// in that. It holds for values to come.
///
/// # Errors
/// The server's.
pub async fn storage_statement(
    session: &Session,
    table: u32,
    column: &ColumnName,
) -> Result<Option<String>, DatabaseError> {
    let found: Option<(String, Option<String>, Option<String>)> = session
        .query_opt(
            "SELECT format('%I.%I', n.nspname, c.relname), \
                    CASE WHEN o.attstorage <> w.attstorage THEN \
                      CASE o.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END, \
                    CASE WHEN o.attcompression <> w.attcompression THEN \
                      CASE o.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'DEFAULT' END END \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_attribute o ON o.attrelid = c.oid AND o.attname = $2::text AND NOT o.attisdropped \
             JOIN pg_attribute w ON w.attrelid = c.oid AND w.attname = $3::text AND NOT w.attisdropped \
             WHERE c.oid = $1::oid AND o.atttypid = w.atttypid",
            &[&table, &column.name, &column.staging],
        )
        .await
        .and_then(|row| row.as_ref().map(columns).transpose())
        .map_err(DatabaseError::during("reading how a column is stored"))?;
    let Some((table, storage, compression)) = found else {
        return Ok(None);
    };
    let staging = identifier(&column.staging);
    let changes = [
        storage.map(|kind| format!("ALTER COLUMN {staging} SET STORAGE {kind}")),
        compression.map(|kind| format!("ALTER COLUMN {staging} SET COMPRESSION {kind}")),
    ];
    let changes: Vec<String> = changes.into_iter().flatten().collect();
    Ok((!changes.is_empty()).then(|| format!("ALTER TABLE {table} {}", changes.join(", "))))
}
