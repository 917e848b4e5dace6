//! How many rows of a job have a vector.
//!
//! Counting reads the whole table, so only small tables are counted unless a person asks for it. Of a larger one some
//! random pages are read (PostgreSQL manual, "SELECT", TABLESAMPLE SYSTEM): that is as fresh as a count. To choose pages the
//! server goes through the numbers of all, which takes seconds for a table of a terabyte; there its statistics must do
//! ("pg_stats", `null_frac`).

mod documents;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::jobs::Definition;
use crate::postgres::answer::columns;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};
use crate::status::JobCounters;
use crate::status::record::Coverage;

/// What is read for a person who asks, in bytes: some milliseconds. A table of at most this size is counted.
const SMALL_TABLE: i64 = 8 << 20;
/// What the daemon reads each minute, in bytes.
const SMALL_SAMPLE: i64 = 1 << 20;
/// How many rows are looked up in another table for a person who asks: some ten milliseconds, if it is in memory.
const MAX_LOOKS: u64 = 16_384;
/// The largest table of which pages are chosen, in bytes.
const MAX_SAMPLED_TABLE: i64 = 16 << 30;

/// Which tables are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// None, and nothing is read.
    Off,
    /// Those of a megabyte, and as much is read of larger ones.
    Sparing,
    /// Those of some megabytes, and as much is read of larger ones.
    Small,
    /// All, however long that takes.
    Always,
}

impl Counting {
    /// How much is read of a table of this size, in bytes.
    fn bytes(self, all: i64) -> i64 {
        match self {
            Counting::Off => 0,
            Counting::Always => all.max(1),
            Counting::Small => SMALL_TABLE,
            Counting::Sparing => SMALL_SAMPLE,
        }
    }

    /// How many rows are looked up in another table.
    fn looks(self) -> u64 {
        match self {
            Counting::Off => 0,
            Counting::Always => u64::MAX,
            Counting::Small => MAX_LOOKS,
            Counting::Sparing => MAX_LOOKS / 8,
        }
    }
}

/// Size in bytes and rows, of a table or of all partitions of one, whether it has partitions, and whether the role may
/// read both columns.
type Extent = (i64, f64, bool, bool);

/// How often the daemon asks.
const INTERVAL: Duration = Duration::from_secs(60);

/// Asks again and again how many rows have a vector, and tells the counters. Never returns: nothing
/// of a job depends on it.
///
/// Cancellation safe.
pub async fn watch(
    session: Arc<Session>,
    definition: Definition,
    counters: Arc<JobCounters>,
) -> Infallible {
    loop {
        match of_job(&session, &definition, Counting::Sparing).await {
            Ok(coverage) => counters.set_coverage(coverage),
            Err(error) => tracing::debug!("it is unknown how many rows have a vector: {error}"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// How many rows of the job's table have a vector; `None` if the table or its columns are not there, the role may not read
/// them, or the server has no statistics of them yet.
///
/// # Errors
/// The server's.
pub async fn of_job(
    session: &Session,
    definition: &Definition,
    counting: Counting,
) -> Result<Option<Coverage>, DatabaseError> {
    if counting == Counting::Off {
        return Ok(None);
    }
    if definition.chunk_table.is_some() {
        return documents::of_job(session, definition, counting).await;
    }
    let (Some(table), Some(source), Some(destination)) = (
        &definition.table,
        &definition.src_column,
        &definition.dst_column,
    ) else {
        return Ok(None);
    };
    let schema = &definition.schema;
    let extent = extent(session, [schema, table, source, destination]).await?;
    let Some((bytes, rows, partitioned, _)) = extent else {
        return Ok(None);
    };
    let read = counting.bytes(bytes);
    if bytes > read && bytes > MAX_SAMPLED_TABLE {
        return estimate(session, definition, rows, partitioned).await;
    }
    let has_text = has_text(source);
    let share = read as f64 / bytes.max(1) as f64;
    let statement = format!(
        "SELECT count(*) FILTER (WHERE {has_text}), count(*) FILTER (WHERE {has_text} AND t.{} IS NOT NULL) FROM {}",
        identifier(destination),
        sampled(definition, partitioned, share),
    );
    let counted = session.query_one(&statement, &[]).await;
    let counted = counted.and_then(|row| columns::<(i64, i64)>(&row));
    let (texts, vectors) = counted.map_err(DatabaseError::during("counting vectors"))?;
    if texts == 0 && share < 1.0 {
        return estimate(session, definition, rows, partitioned).await;
    }
    let of_all = |rows: i64| (rows.unsigned_abs() as f64 / share.min(1.0)).round() as u64;
    Ok(Some(Coverage {
        rows_with_text: of_all(texts),
        rows_with_vector: of_all(vectors),
        passages: None,
        is_exact: share >= 1.0,
    }))
}

/// The extent of a table, of which these are schema, name, and two columns; `None` where one of them is missing, or the role
/// may not read it.
async fn extent(session: &Session, names: [&str; 4]) -> Result<Option<Extent>, DatabaseError> {
    let failed = || DatabaseError::during("asking how large a table is");
    let question = session.repeated(EXTENT).await.map_err(failed())?;
    let [schema, table, first, second] = names;
    let extent = session
        .query_opt(&question, &[&schema, &table, &first, &second])
        .await
        .and_then(|row| row.as_ref().map(columns::<Extent>).transpose())
        .map_err(failed())?;
    Ok(extent.filter(|(.., may_read)| *may_read))
}

/// SQL that is true where the row `t` has a text. As the daemon sees it: an empty text has no vector.
fn has_text(source: &str) -> String {
    format!(
        "NULLIF(t.{}::text COLLATE \"C\", '') IS NOT NULL",
        identifier(source)
    )
}

/// The job's table `t`, or this share of it, as a FROM clause. As in the stream: without the rows of tables that inherit.
fn sampled(definition: &Definition, partitioned: bool, share: f64) -> String {
    let only = if partitioned { "" } else { "ONLY " };
    format!(
        "{only}{}.{} t {}",
        identifier(&definition.schema),
        identifier(definition.table.as_deref().unwrap_or_default()),
        sample(share)
    )
}

fn sample(share: f64) -> String {
    match share < 1.0 {
        true => format!("TABLESAMPLE SYSTEM ({:.6})", share * 100.0),
        false => String::new(),
    }
}

/// `reltuples` is -1 for a table that was never analyzed.
const EXTENT: &str = "SELECT sum(pg_relation_size(l.oid))::bigint, sum(GREATEST(l.reltuples, 0))::float8, \
       bool_and(t.relkind = 'p'), \
       bool_and(has_column_privilege(t.oid, s.attnum, 'SELECT') AND has_column_privilege(t.oid, d.attnum, 'SELECT')) \
     FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace \
     JOIN pg_attribute s ON s.attrelid = t.oid AND s.attname = $3 AND NOT s.attisdropped \
     JOIN pg_attribute d ON d.attrelid = t.oid AND d.attname = $4 AND NOT d.attisdropped \
     CROSS JOIN LATERAL ( \
       SELECT t.oid, t.reltuples WHERE t.relkind <> 'p' \
       UNION ALL SELECT c.oid, c.reltuples FROM pg_partition_tree(t.oid) p JOIN pg_class c ON c.oid = p.relid \
       WHERE t.relkind = 'p' AND p.isleaf) l \
     WHERE n.nspname = $1 AND t.relname = $2 GROUP BY t.oid";

async fn estimate(
    session: &Session,
    definition: &Definition,
    rows: f64,
    partitioned: bool,
) -> Result<Option<Coverage>, DatabaseError> {
    let fraction = |column: &Option<String>| {
        format!(
            "(SELECT 1 - s.null_frac FROM pg_stats s WHERE s.schemaname = $1 AND s.tablename = $2 AND s.attname = {} \
             AND s.inherited = {partitioned})::float8",
            literal(column.as_deref().unwrap_or_default())
        )
    };
    let statement = format!(
        "SELECT {}, {}",
        fraction(&definition.src_column),
        fraction(&definition.dst_column)
    );
    let failed = || DatabaseError::during("reading statistics of a table");
    let question = session.repeated(&statement).await.map_err(failed())?;
    let fractions = session
        .query_one(&question, &[&definition.schema, &definition.table])
        .await
        .and_then(|row| columns::<(Option<f64>, Option<f64>)>(&row))
        .map_err(failed())?;
    let (Some(texts), Some(vectors)) = fractions else {
        return Ok(None);
    };
    let share = |fraction: f64| (rows * fraction.clamp(0.0, 1.0)).round() as u64;
    Ok(Some(Coverage {
        rows_with_text: share(texts),
        rows_with_vector: share(vectors.min(texts)),
        passages: None,
        is_exact: false,
    }))
}
