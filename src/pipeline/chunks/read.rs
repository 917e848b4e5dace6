//! The statement that reads documents by key, each in one snapshot with its passages.
//!
//! ```text
//! asked     the keys, with their rows: whether the change is visible, whether the passages are current, how large the
//!    │      text is
//! totaled   the running total of the texts that are wanted
//!    │
//! result    for each key what was found; text, fields and passages of as many documents as there is room for
//! ```
//!
//! Subqueries are of one value each: an EXISTS may be planned as a hash of all rows of its table.
//!
//! The text goes through the first two parts as the reference to its TOAST that the row has. It is read where it is sent.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::found::{Document, Found, FoundDocument, StoredPassage, StoredVersion};
use crate::pipeline::table::passages::{
    CHUNK, CHUNK_FINGERPRINT, DOCUMENT_FINGERPRINT, END, PassageTable, SEQ, START,
};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::visibility::is_visible;
use crate::postgres::quote::identifier;

/// The statement. Its parameters are the key arrays, the transactions that the changes came with (0 for none), how many
/// bytes of text it may send, and whether the first text is sent however long it is. [`found`] reads its rows.
///
/// With `renews`, no document counts as current that has a text.
pub fn statement(target: &TargetTable, passages: &PassageTable, renews: bool) -> String {
    let (room, first) = (target.key.len() + 2, target.key.len() + 3);
    let keys: Vec<String> = (0..target.key.len()).map(|n| format!("i.k{n}")).collect();
    let template = target.source.template.as_ref();
    let fields = (0..template.map_or(0, |template| template.columns().len()))
        .filter_map(|place| template.map(|template| template.value_sql("t", place)));
    let fields: Vec<String> = fields.collect();
    format!(
        "WITH asked AS MATERIALIZED ( \
           SELECT i.n, {keys}, s.text, octet_length(s.text) AS size, ARRAY[{fields}]::text[] AS fields, v.visible, \
                  CASE WHEN NOT v.visible THEN false \
                       WHEN t.ctid IS NULL THEN (SELECT true FROM {table} p WHERE {of_key} LIMIT 1) IS NULL \
                       ELSE {current} END AS current \
           FROM (SELECT u.n, {casts}, u.xid FROM {batch}) i LEFT JOIN {source} t ON {join} \
           CROSS JOIN LATERAL (SELECT {text} AS text) s \
           CROSS JOIN LATERAL (SELECT ({visible}) AND NOT row_security_active({oid}::oid) AS visible) v \
         ), totaled AS MATERIALIZED ( \
           SELECT i.*, sum(CASE WHEN i.current OR i.size > {limit} THEN 0 ELSE i.size END) OVER (ORDER BY i.n) AS total \
           FROM asked i \
         ), judged AS MATERIALIZED ( \
           SELECT i.*, i.visible AND NOT i.current AND i.size <= {limit} AND (i.total <= ${room} OR i.n = 1 AND ${first}) AS here \
           FROM totaled i \
         ) \
         SELECT i.n, i.visible, i.current, i.size, COALESCE(i.here, false), \
                CASE WHEN i.here THEN i.text END, CASE WHEN i.here THEN i.fields END, stored.* \
         FROM judged i CROSS JOIN LATERAL ({stored}) stored",
        keys = keys.join(", "),
        fields = fields.join(", "),
        table = passages.qualified(),
        of_key = target.key_join("p", "i"),
        current = match renews {
            true => format!(
                "{} IS NULL AND {}",
                target.source.plain_sql("t"),
                target.is_current("t")
            ),
            false => target.is_current("t"),
        },
        casts = target.key_casts("u"),
        batch = target.unnest_keys(&[("bigint", "xid")]),
        source = target.from_clause(),
        join = target.key_join("t", "i"),
        text = target.source.plain_sql("t"),
        visible = is_visible("i.xid"),
        oid = target.oid,
        limit = passages.max_document_bytes,
        stored = stored(target, passages),
    )
}

/// The types of its parameters.
pub fn types(target: &TargetTable) -> Vec<Type> {
    let mut types = vec![Type::TEXT_ARRAY; target.key.len()];
    types.extend([Type::INT8_ARRAY, Type::INT8, Type::BOOL]);
    types
}

/// The stored passages of the row `i`, as arrays in order of their place, and their version.
fn stored(target: &TargetTable, passages: &PassageTable) -> String {
    let vector = identifier(&target.destination.name);
    format!(
        "SELECT array_agg(p.{SEQ}), array_agg(p.{START}), array_agg(p.{END}), array_agg(p.fingerprint), \
                array_agg(p.digest), array_agg(p.has_vector), \
                array_agg(p.{DOCUMENT_FINGERPRINT}), {version} AS version \
         FROM (SELECT p.{SEQ}, p.{START}, p.{END}, {row_version} AS row_version, p.{vector} IS NOT NULL AS has_vector, \
                      p.{DOCUMENT_FINGERPRINT}, \
                      CASE WHEN i.here AND p.{vector} IS NOT NULL THEN p.{CHUNK_FINGERPRINT} END AS fingerprint, \
                      CASE WHEN i.here THEN md5(convert_to(p.{CHUNK}, 'UTF8'))::uuid END AS digest \
               FROM {table} p WHERE {of_key} AND (i.here OR i.visible AND NOT i.current AND i.size IS NULL) \
               ORDER BY p.{SEQ} OFFSET 0) p",
        version = version_of_rows(),
        row_version = row_version("p"),
        table = passages.qualified(),
        of_key = target.key_join("p", "i"),
    )
}

/// SQL for the version of the passage row `alias`.
///
/// A row of PostgreSQL never changes: an update makes another one, at another place or by another transaction.
fn row_version(alias: &str) -> String {
    format!("{alias}.tableoid::text || {alias}.ctid::text || {alias}.xmin::text")
}

/// SQL for the [`StoredVersion`] of rows `p` in order of their place.
fn version_of_rows() -> &'static str {
    "md5(string_agg(p.row_version, ' '))::uuid"
}

/// SQL for the [`StoredVersion`] of the passages with the key of the row `i`, as they are in the statement's snapshot.
pub fn stored_version(target: &TargetTable, passages: &PassageTable) -> String {
    format!(
        "(SELECT {version} FROM (SELECT {row_version} AS row_version FROM {table} p WHERE {of_key} \
                                 ORDER BY p.{SEQ} OFFSET 0) p)",
        version = version_of_rows(),
        row_version = row_version("p"),
        table = passages.qualified(),
        of_key = target.key_join("p", "i"),
    )
}

/// What a row of the result says: the place in the batch, counted from 1, and what was found.
///
/// # Errors
/// Where it has other columns, as no answer of PostgreSQL has.
pub fn found(row: &Row, max_document_bytes: usize) -> Result<(i64, Found), tokio_postgres::Error> {
    let place = row.try_get(0)?;
    let (visible, current): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
    let size = row.try_get::<_, Option<i32>>(3)?;
    let size = size.and_then(|size| usize::try_from(size).ok());
    let is_here: bool = row.try_get(4)?;
    let version = StoredVersion(row.try_get(14)?);
    let found = match size {
        _ if !visible => Found::NotYetVisible,
        _ if current => Found::Current,
        None => Found::Leftover(version),
        Some(size) if size > max_document_bytes => Found::TooLarge(size),
        Some(size) if !is_here => Found::Postponed(size),
        Some(_) => Found::Changed(FoundDocument {
            document: Document {
                text: row.try_get::<_, Option<String>>(5)?.unwrap_or_default(),
                values: row
                    .try_get::<_, Option<Vec<Option<String>>>>(6)?
                    .unwrap_or_default(),
            }
            .into(),
            stored: stored_passages(row)?,
            version,
        }),
    };
    Ok((place, found))
}

fn stored_passages(row: &Row) -> Result<Vec<StoredPassage>, tokio_postgres::Error> {
    let seqs: Vec<i32> = row.try_get::<_, Option<_>>(7)?.unwrap_or_default();
    let starts: Vec<Option<i32>> = row.try_get::<_, Option<_>>(8)?.unwrap_or_default();
    let ends: Vec<Option<i32>> = row.try_get::<_, Option<_>>(9)?.unwrap_or_default();
    let fingerprints: Vec<Option<Uuid>> = row.try_get::<_, Option<_>>(10)?.unwrap_or_default();
    let digests: Vec<Option<Uuid>> = row.try_get::<_, Option<_>>(11)?.unwrap_or_default();
    let vectors: Vec<bool> = row.try_get::<_, Option<_>>(12)?.unwrap_or_default();
    let documents: Vec<Option<Uuid>> = row.try_get::<_, Option<_>>(13)?.unwrap_or_default();
    let spans = starts.into_iter().zip(ends);
    let spans = spans.map(|(start, end)| start.zip(end));
    let vectors = vectors.into_iter().zip(documents);
    let known = fingerprints.into_iter().zip(digests).zip(vectors);
    let rows = seqs.into_iter().zip(spans).zip(known);
    let passage = |((seq, span), ((fingerprint, chunk), (has_vector, document)))| StoredPassage {
        seq,
        span,
        fingerprint,
        chunk,
        has_vector,
        document,
    };
    Ok(rows.map(passage).collect())
}
