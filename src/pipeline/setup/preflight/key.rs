//! The key: what identifies a row in the stream, and what keeps a published table updatable.

use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::Names;
use crate::pipeline::setup::preflight::relation::Relation;
use crate::pipeline::table::target::KeyColumn;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};

/// The columns of the replica identity, or the remedy where updates of the table could not be published.
pub(super) async fn usable_key(
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
            return Err(JobError::permanent(format!(
                "{table} has REPLICA IDENTITY NOTHING: publishing it would make every UPDATE of it fail; run: ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"
            )));
        }
        _ => Vec::new(),
    };
    if key.is_empty() {
        return Err(JobError::permanent(
            no_key_remedy(session, relation.oid, &table).await?,
        ));
    }
    if let Some(pk) = pk {
        let mut asked: Vec<&str> = pk.split(',').map(str::trim).collect();
        let mut found: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        asked.sort_unstable();
        found.sort_unstable();
        if asked != found {
            return Err(JobError::permanent(format!(
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
        (None, None) => {
            format!(
                "ALTER TABLE {table} ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
            )
        }
    };
    Ok(format!(
        "{table} has no usable key: a primary key or a replica identity index is needed, not deferrable; run: {remedy}"
    ))
}
