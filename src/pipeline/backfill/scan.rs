//! The rows that were there before: a scan in key order, page by page, each page a short transaction of its own.
//!
//! The scan starts after the slot exists, so that a row is either seen here or comes through the stream. Where both
//! happen, the guard of the write-back keeps the result right.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;

use crate::failpoint;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{BackfillAck, Key, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::quote::identifier;
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// Text of a scan that may be outstanding, in bytes.
const MAX_BYTES: usize = 32 << 20;
const PAGE_ROWS: i64 = 512;
/// A page ends early once it holds this much text.
const PAGE_BYTES: i64 = 8 << 20;

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub done: u64,
    /// Rows there were to do when the scan began.
    pub total: u64,
}

impl Progress {
    pub fn percent(&self) -> u8 {
        (self.done * 100)
            .checked_div(self.total)
            .map_or(0, |percent| percent.min(99) as u8)
    }
}

pub struct Backfill {
    session: Session,
    /// The job's table, or some of its partitions.
    tables: Vec<Arc<TargetTable>>,
    scope: BackfillScope,
    rows: mpsc::Sender<Row>,
    finished: mpsc::Receiver<BackfillAck>,
}

impl Backfill {
    /// Opens a session of its own for the scan. As many rows may be outstanding as `rows` has room for; `finished` needs the
    /// same room.
    pub async fn open(
        database: &ConnectionString,
        tables: Vec<Arc<TargetTable>>,
        scope: BackfillScope,
        rows: mpsc::Sender<Row>,
        finished: mpsc::Receiver<BackfillAck>,
    ) -> Result<Backfill, JobError> {
        let session = Session::open(database).await?;
        // The scan follows the key's index, whatever the statistics say of the rows that are left.
        session
            .batch_execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off")
            .await
            .map_err(DatabaseError::during("preparing the scan"))?;
        Ok(Backfill {
            session,
            tables,
            scope,
            rows,
            finished,
        })
    }

    /// The number of rows that the scan is for, now.
    pub async fn count(&self) -> Result<u64, JobError> {
        let mut total = 0;
        for table in &self.tables {
            let statement = format!(
                "SELECT count(*) FROM {} t WHERE {}",
                table.from_clause(),
                condition(table, self.scope)
            );
            let row =
                self.session
                    .query_one(&statement, &[])
                    .await
                    .map_err(DatabaseError::during(format!(
                        "counting the rows of {}",
                        table.qualified()
                    )))?;
            total += row.get::<_, i64>(0).unsigned_abs();
        }
        Ok(total)
    }

    /// Scans the tables one after the other and returns when every row found is written, superseded or gone. `report` hears of each
    /// step.
    ///
    /// # Errors
    /// The server's. A scan that was cut short starts from the beginning; with [`BackfillScope::Missing`] it passes over what it
    /// has done.
    pub async fn run(mut self, mut report: impl FnMut(Progress)) -> Result<Progress, JobError> {
        let mut progress = Progress {
            done: 0,
            total: self.count().await?,
        };
        report(progress);
        let max_rows = self.rows.max_capacity();
        let mut outstanding = Outstanding::default();
        let mut tables = std::mem::take(&mut self.tables).into_iter();
        let mut table = tables.next();
        let mut after: Option<Key> = None;
        let mut finished = Vec::new();
        while let Some(target) = &table {
            let page = self.page(target, after.as_ref()).await?;
            let Some(last) = page.last() else {
                (table, after) = (tables.next(), None);
                continue;
            };
            after = Some(last.key.clone());
            for row in page {
                while !outstanding.has_room(max_rows) {
                    self.take_back(&mut finished).await?;
                    outstanding.settle(&finished, &mut progress, &mut report);
                }
                outstanding.rows += 1;
                outstanding.bytes += row.ack.bytes();
                self.rows.send(row).await.map_err(|_| stopped())?;
                failpoint::reach("within-backfill-page");
            }
        }
        while outstanding.rows > 0 {
            self.take_back(&mut finished).await?;
            outstanding.settle(&finished, &mut progress, &mut report);
        }
        Ok(progress)
    }

    async fn take_back(&mut self, finished: &mut Vec<BackfillAck>) -> Result<(), JobError> {
        finished.clear();
        match self
            .finished
            .recv_many(finished, self.rows.max_capacity())
            .await
        {
            0 => Err(stopped()),
            _ => Ok(()),
        }
    }

    async fn page(&self, target: &TargetTable, after: Option<&Key>) -> Result<Vec<Row>, JobError> {
        let statement = page_statement(target, self.scope, after.is_some());
        let parts: Vec<&str> = after.iter().flat_map(|key| key.parts()).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parts
            .iter()
            .map(|part| part as &(dyn ToSql + Sync))
            .collect();
        let rows =
            self.session
                .query(&statement, &parameters)
                .await
                .map_err(DatabaseError::during(format!(
                    "scanning {}",
                    target.qualified()
                )))?;
        let keys = target.key.len();
        Ok(rows
            .iter()
            .map(|row| Row::backfill(target.read_key(row), SourceText::from_column(row.get(keys))))
            .collect())
    }
}

/// Rows that are on their way.
#[derive(Default)]
struct Outstanding {
    rows: usize,
    bytes: usize,
}

impl Outstanding {
    fn has_room(&self, max_rows: usize) -> bool {
        self.rows < max_rows && self.bytes < MAX_BYTES
    }

    fn settle(
        &mut self,
        finished: &[BackfillAck],
        progress: &mut Progress,
        report: &mut impl FnMut(Progress),
    ) {
        self.rows -= finished.len();
        self.bytes -= finished.iter().map(|ack| ack.bytes).sum::<usize>();
        progress.done += finished.len() as u64;
        report(*progress);
    }
}

fn stopped() -> JobError {
    JobError::Transient("the batcher has stopped".into())
}

fn condition(target: &TargetTable, scope: BackfillScope) -> String {
    let source = target.source.sql("t");
    let destination = identifier(&target.destination.name);
    match scope {
        BackfillScope::Missing => format!("({source} IS NULL) <> (t.{destination} IS NULL)"),
        BackfillScope::All => format!("({source} IS NOT NULL OR t.{destination} IS NOT NULL)"),
        BackfillScope::Mismatched { trust_unverified } => {
            let fits = target.is_current("t");
            match target.fingerprint.as_ref().filter(|_| trust_unverified) {
                Some(fingerprint) => format!(
                    "NOT {fits} AND NOT ({source} IS NOT NULL AND t.{destination} IS NOT NULL AND {} IS NULL)",
                    fingerprint.column("t")
                ),
                None => format!("NOT {fits}"),
            }
        }
    }
}

/// The next rows after a key: key columns as text, then the source. A page has at least one row if there is one, and
/// stops before the row with which it would hold more than [`PAGE_BYTES`].
fn page_statement(target: &TargetTable, scope: BackfillScope, continues: bool) -> String {
    let order = target.key_columns("t");
    let place = if continues {
        format!("{} AND ", target.after_key("t", 1))
    } else {
        String::new()
    };
    let names: Vec<String> = (0..target.key.len())
        .map(|position| format!("p.k{position}"))
        .collect();
    format!(
        "SELECT {names}, p.source FROM ( \
           SELECT q.*, sum(COALESCE(octet_length(q.source), 0)) OVER (ORDER BY q.place ROWS UNBOUNDED PRECEDING) \
                       - COALESCE(octet_length(q.source), 0) AS before \
           FROM (SELECT row_number() OVER () AS place, r.* FROM ( \
                   SELECT {keys}, {source} AS source FROM {table} t WHERE {place}{condition} ORDER BY {order} LIMIT {PAGE_ROWS}) r) q \
         ) p WHERE p.before < {PAGE_BYTES} ORDER BY p.place",
        names = names.join(", "),
        keys = target.key_texts("t"),
        source = target.source.sql("t"),
        table = target.from_clause(),
        condition = condition(target, scope),
    )
}
