//! How many documents of a job with a chunk table have passages, and how many passages there are.
//!
//! The documents are sampled like the rows of any job. For each that is read, one look into the index of the chunk table
//! tells whether it has passages, so their number is bounded too: a look may cost a read from the disk. Passages are
//! counted in a small chunk table. Of a larger one the server's own estimate of its rows is as good as a sample.

use super::{Counting, Extent, extent, has_text, sampled};
use crate::jobs::Definition;
use crate::pipeline::table::passages::{DOCUMENT_FINGERPRINT, SEQ};
use crate::postgres::answer::columns;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};
use crate::status::record::Coverage;

/// What a row of a table takes at least, in bytes, where the server does not know how many there are.
const SMALL_ROW: f64 = 200.0;

/// How many documents of the job have passages; `None` as for [`of_job`](super::of_job), or without a chunk table.
///
/// # Errors
/// The server's.
pub(super) async fn of_job(
    session: &Session,
    definition: &Definition,
    counting: Counting,
) -> Result<Option<Coverage>, DatabaseError> {
    let (Some(table), Some(source), Some(written)) = (
        &definition.table,
        &definition.src_column,
        definition.written_table(),
    ) else {
        return Ok(None);
    };
    let schema = &definition.schema;
    let extent = extent(session, [schema, table, source, source]).await?;
    let passages = (written.schema.as_str(), written.table.as_str());
    let found = ChunkTable::find(session, (schema, table), passages).await?;
    let (Some(extent), Some(found)) = (extent, found) else {
        return Ok(None);
    };
    let (passages, is_counted) = found.count(session, counting).await?;
    let documents = Documents {
        session,
        definition,
        chunk_table: &found,
        passages,
    };
    let share = share(counting, extent);
    let coverage = documents.count(source, share, extent).await?;
    Ok(coverage.map(|coverage| Coverage {
        is_exact: coverage.is_exact && is_counted,
        ..coverage
    }))
}

/// Which part of the rows is looked at.
fn share(counting: Counting, (bytes, rows, ..): Extent) -> f64 {
    let rows = rows.max(bytes as f64 / SMALL_ROW);
    let by_rows = counting.looks() as f64 / rows.max(1.0);
    let by_bytes = counting.bytes(bytes) as f64 / bytes.max(1) as f64;
    by_rows.min(by_bytes).min(1.0)
}

struct Documents<'a> {
    session: &'a Session,
    definition: &'a Definition,
    chunk_table: &'a ChunkTable,
    passages: u64,
}

impl Documents<'_> {
    async fn count(
        &self,
        source: &str,
        share: f64,
        extent: Extent,
    ) -> Result<Option<Coverage>, DatabaseError> {
        let (bytes, rows, partitioned, _) = extent;
        if share < 1.0 && bytes > super::MAX_SAMPLED_TABLE {
            return self.estimate(rows, partitioned).await;
        }
        let has_text = has_text(source);
        // EXISTS could be planned as a hash of all passages.
        let statement = format!(
            "SELECT count(*) FILTER (WHERE {has_text}), count(*) FILTER (WHERE {has_text} AND ( \
               SELECT true FROM {passages} p WHERE {of_row} AND p.{SEQ} = 0 LIMIT 1)) FROM {rows}",
            passages = self.chunk_table.qualified,
            of_row = self.chunk_table.of_row,
            rows = sampled(self.definition, partitioned, share),
        );
        let counted = self.session.query_one(&statement, &[]).await;
        let counted = counted.and_then(|row| columns::<(i64, i64)>(&row));
        let (texts, done) = counted.map_err(DatabaseError::during("counting documents"))?;
        if texts == 0 && share < 1.0 {
            return self.estimate(rows, partitioned).await;
        }
        let of_all = |rows: i64| (rows.unsigned_abs() as f64 / share).round() as u64;
        Ok(Some(Coverage {
            rows_with_text: of_all(texts),
            rows_with_vector: of_all(done),
            passages: Some(self.passages),
            is_exact: share >= 1.0,
        }))
    }

    /// By the server's statistics: one passage of each document has its fingerprint.
    async fn estimate(
        &self,
        rows: f64,
        partitioned: bool,
    ) -> Result<Option<Coverage>, DatabaseError> {
        let fraction = |schema: &str, table: &str, column: &str, inherited: bool| {
            format!(
                "(SELECT 1 - s.null_frac FROM pg_stats s WHERE s.schemaname = {} AND s.tablename = {} AND s.attname = {} \
                 AND s.inherited = {inherited})::float8",
                literal(schema),
                literal(table),
                literal(column)
            )
        };
        let definition = self.definition;
        let (table, source) = (&definition.table, &definition.src_column);
        let statement = format!(
            "SELECT {}, {}",
            fraction(
                &definition.schema,
                table.as_deref().unwrap_or_default(),
                source.as_deref().unwrap_or_default(),
                partitioned
            ),
            fraction(
                &self.chunk_table.schema,
                &self.chunk_table.name,
                DOCUMENT_FINGERPRINT,
                false
            ),
        );
        let fractions = self.session.query_one(&statement, &[]).await;
        let fractions = fractions.and_then(|row| columns::<(Option<f64>, Option<f64>)>(&row));
        let fractions =
            fractions.map_err(DatabaseError::during("reading statistics of documents"))?;
        let (Some(texts), Some(documents)) = fractions else {
            return Ok(None);
        };
        let texts = rows * texts.clamp(0.0, 1.0);
        let documents = self.passages as f64 * documents.clamp(0.0, 1.0);
        Ok(Some(Coverage {
            rows_with_text: texts.round() as u64,
            rows_with_vector: documents.min(texts).round() as u64,
            passages: Some(self.passages),
            is_exact: false,
        }))
    }
}

/// A chunk table as it is on the server.
struct ChunkTable {
    schema: String,
    name: String,
    /// Both, quoted.
    qualified: String,
    bytes: i64,
    /// By the server's estimate; negative where there is none.
    rows: f64,
    /// SQL: the condition that the passage `p` is of the row `t`.
    of_row: String,
}

/// Schema and name of a table.
type Name<'a> = (&'a str, &'a str);
/// Size in bytes, rows as estimated, the condition that a passage is of a row, and whether the role may read all that.
type Answer = (i64, f64, Option<String>, bool);

impl ChunkTable {
    /// `None` where there is none that fits, or that the role may read.
    async fn find(
        session: &Session,
        (schema, table): Name<'_>,
        (own_schema, name): Name<'_>,
    ) -> Result<Option<ChunkTable>, DatabaseError> {
        let failed = || DatabaseError::during("asking how large a chunk table is");
        let question = session.repeated(CHUNK_TABLE).await.map_err(failed())?;
        let found = session
            .query_opt(&question, &[&schema, &table, &own_schema, &name, &SEQ])
            .await
            .and_then(|row| row.as_ref().map(columns::<Answer>).transpose())
            .map_err(failed())?;
        let Some((bytes, rows, Some(of_row), true)) = found else {
            return Ok(None);
        };
        Ok(Some(ChunkTable {
            schema: own_schema.to_owned(),
            name: name.to_owned(),
            qualified: format!("{}.{}", identifier(own_schema), identifier(name)),
            bytes,
            rows,
            of_row,
        }))
    }

    /// How many passages there are, and whether they were counted.
    async fn count(
        &self,
        session: &Session,
        counting: Counting,
    ) -> Result<(u64, bool), DatabaseError> {
        let share = counting.bytes(self.bytes) as f64 / self.bytes.max(1) as f64;
        if share < 1.0 && self.rows >= 0.0 {
            return Ok((self.rows.round() as u64, false));
        }
        let sample = super::sample(share);
        let statement = format!("SELECT count(*) FROM {} p {sample}", self.qualified);
        let counted = session.query_one(&statement, &[]).await;
        let counted = counted.and_then(|row| row.try_get::<_, i64>(0));
        let counted = counted.map_err(DatabaseError::during("counting passages"))?;
        let all = counted.unsigned_abs() as f64 / share.min(1.0);
        Ok((all.round() as u64, share >= 1.0))
    }
}

/// The table `$3.$4`, whose passages are of rows of `$1.$2`. Keys are compared as the index does that has the key and the
/// number (`$5`) of a passage. `reltuples` is of the moment of the last VACUUM or ANALYZE, when the table had `relpages`.
const CHUNK_TABLE: &str = "SELECT pg_relation_size(c.oid), \
       CASE WHEN c.reltuples >= 0 AND c.relpages > 0 \
            THEN c.reltuples::float8 * pg_relation_size(c.oid) / current_setting('block_size')::int / c.relpages \
            ELSE -1 END, \
       k.of_row, has_table_privilege(c.oid, 'SELECT') AND k.may_read \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     CROSS JOIN pg_class t JOIN pg_namespace tn ON tn.oid = t.relnamespace \
     CROSS JOIN LATERAL ( \
       SELECT string_agg(format('p.%1$I OPERATOR(%2$I.%3$s) t.%1$I', a.attname, os.nspname, o.oprname), ' AND ') AS of_row, \
              bool_and(s.attnum IS NOT NULL AND has_column_privilege(t.oid, s.attnum, 'SELECT')) AS may_read \
       FROM pg_index i \
       CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS x(attnum, class, position) \
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.attnum AND a.attname <> $5::text \
       LEFT JOIN pg_attribute s ON s.attrelid = t.oid AND s.attname = a.attname AND NOT s.attisdropped \
       JOIN pg_opclass oc ON oc.oid = x.class \
       JOIN pg_amop m ON m.amopfamily = oc.opcfamily AND m.amoplefttype = oc.opcintype AND m.amoprighttype = oc.opcintype \
                     AND m.amopstrategy = 3 \
       JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace os ON os.oid = o.oprnamespace \
       WHERE x.position <= i.indnkeyatts AND i.indexrelid = ( \
         SELECT u.indexrelid FROM pg_index u JOIN pg_attribute q ON q.attrelid = u.indrelid AND q.attname = $5::text \
         WHERE u.indrelid = c.oid AND u.indisunique AND u.indisvalid AND u.indpred IS NULL AND u.indexprs IS NULL \
           AND q.attnum = ANY (u.indkey::int2[]) ORDER BY u.indisprimary DESC, u.indexrelid LIMIT 1)) k \
     WHERE tn.nspname = $1 AND t.relname = $2 AND n.nspname = $3 AND c.relname = $4 AND c.relkind = 'r'";
