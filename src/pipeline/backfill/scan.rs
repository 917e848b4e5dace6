//! The scan: sends the existing rows of a job to its write path, with a bound on how many are outstanding.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failpoint;
use crate::pipeline::backfill::keyset::KeysetPages;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::chunks::orphans;
use crate::pipeline::error::JobError;
use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::row::{BackfillAck, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::postgres::sqlstate::{SqlStateClass, classify};
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// Text of a scan that may be outstanding, in bytes.
const MAX_BACKFILL_BYTES: usize = 32 << 20;

/// The settings of the session: the scan follows the key's index, whatever the statistics say of the rows that are
/// left. A plan that sorts would read the whole table for each page (PostgreSQL manual, "Planner Method
/// Configuration").
const SETTINGS: &str =
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET jit = off";

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackfillProgress {
    /// Rows that are finished.
    pub done: u64,
    /// Rows that the scan was for when it began. Changes may make it find more or fewer.
    pub total: u64,
}

impl BackfillProgress {
    /// At most 99: all is done when the scan ends, and no sooner.
    pub fn percent(&self) -> u8 {
        (self.done * 100)
            .checked_div(self.total)
            .map_or(0, |percent| percent.min(99) as u8)
    }
}

/// What a scan reads: a table, or some of its rows.
#[derive(Debug, Clone)]
pub struct Part {
    /// The table.
    pub table: Arc<TargetTable>,
    /// SQL over the row `t`: a condition for the rows in this part.
    pub within: Option<String>,
    /// Whether the table is that of the job, and not one of its partitions.
    pub is_whole: bool,
}

impl Part {
    /// All rows of a table.
    pub fn whole(table: Arc<TargetTable>) -> Part {
        Part {
            table,
            within: None,
            is_whole: true,
        }
    }

    /// No row of a table, but the passages of rows that it does not have.
    pub fn passages_without_rows(table: Arc<TargetTable>) -> Part {
        Part {
            within: Some("false".to_owned()),
            ..Part::whole(table)
        }
    }

    /// SQL over the row `t` that is true for the rows of this part that the scope is for.
    fn condition(&self, scope: BackfillScope) -> String {
        let condition = scope.condition(&self.table);
        match &self.within {
            Some(within) => format!("{within} AND {condition}"),
            None => condition,
        }
    }
}

/// A scan of a job's table, or of some of its partitions.
pub struct Backfill {
    session: Session,
    parts: Vec<Part>,
    scope: BackfillScope,
    rows: mpsc::Sender<Row>,
    finished: mpsc::Receiver<BackfillAck>,
    stop: CancellationToken,
}

impl Backfill {
    /// Opens a session of its own for the scan, which fails where row level security would hide rows from it. As many
    /// rows may be outstanding as `rows` has room for; `finished` needs the same room.
    ///
    /// # Errors
    /// The server's.
    pub async fn open(
        database: &ConnectionString,
        parts: Vec<Part>,
        scope: BackfillScope,
        rows: mpsc::Sender<Row>,
        finished: mpsc::Receiver<BackfillAck>,
    ) -> Result<Backfill, JobError> {
        let session = Session::open(database).await?;
        let failed = || DatabaseError::during("preparing the scan");
        session.batch_execute(SETTINGS).await.map_err(failed())?;
        // A policy may come while the scan runs. It would take an empty page for the end of the table.
        session.refuse_hidden_rows().await.map_err(failed())?;
        Ok(Backfill {
            session,
            parts,
            scope,
            rows,
            finished,
            stop: CancellationToken::new(),
        })
    }

    /// The same scan, which sends no more rows once `stop` is canceled, and ends when those that it has sent are
    /// finished.
    pub fn until(self, stop: CancellationToken) -> Backfill {
        Backfill { stop, ..self }
    }

    /// Scans the parts one after the other. Returns when every row found is written, superseded, gone or quarantined;
    /// `report` is told of each step.
    ///
    /// # Errors
    /// The server's. A scan that was cut short starts from the beginning. Except with [`BackfillScope::All`] it then
    /// passes over what it has done.
    pub async fn run(
        self,
        report: impl FnMut(BackfillProgress),
    ) -> Result<BackfillProgress, JobError> {
        let total = self.count().await?;
        let mut outstanding = Outstanding::new(self.rows, self.finished, total, report);
        let is_stopped = || self.stop.is_cancelled();
        for part in &self.parts {
            let (table, condition) = (&part.table, part.condition(self.scope));
            let mut pages = KeysetPages::new(&self.session, table, condition);
            let mut rows = read_page(&mut pages, part).await?;
            while !rows.is_empty() && !is_stopped() {
                // The next page is on its way while the rows of this one are embedded.
                let (next, ()) = tokio::try_join!(
                    read_page(&mut pages, part),
                    outstanding.send_all(rows, is_stopped)
                )?;
                rows = next;
            }
        }
        if let Some((target, passages)) = whole_table_with_passages(&self.parts) {
            let mut after = None;
            loop {
                let page = orphans::page(&self.session, target, passages, after.as_ref(), 0);
                let page = page.await?;
                // As rows that are gone: changes of them may have been missed.
                let rows = page.orphans.into_iter();
                let rows = rows.map(|key| Row::backfill(key, SourceText::Unread));
                outstanding.send_all(rows.collect(), is_stopped).await?;
                after = page.last;
                if after.is_none() || is_stopped() {
                    break;
                }
            }
        }
        outstanding.settle_all().await
    }

    /// The number of rows that the scan is for, now.
    async fn count(&self) -> Result<u64, JobError> {
        let mut total = 0;
        for part in &self.parts {
            let table = &part.table;
            total += match self.count_where(table, &part.condition(self.scope)).await {
                Err(error) if is_of_one_row(&error) => self.count_where(table, "true").await?,
                counted => counted?,
            };
        }
        Ok(total)
    }

    async fn count_where(
        &self,
        table: &TargetTable,
        condition: &str,
    ) -> Result<u64, DatabaseError> {
        let statement = format!(
            "SELECT count(*) FROM {} t WHERE {condition}",
            table.from_clause()
        );
        let counted = self.session.query_one(&statement, &[]).await;
        let counted: Result<i64, _> = counted.and_then(|row| row.try_get(0));
        let counted = counted.map_err(DatabaseError::during(format!(
            "counting the rows of {}",
            table.qualified()
        )))?;
        Ok(counted.unsigned_abs())
    }
}

/// The table with its passages, where the scan is of all of it. The passages of a partition are with those of the others,
/// whose rows it does not have.
fn whole_table_with_passages(parts: &[Part]) -> Option<(&TargetTable, &PassageTable)> {
    let part = parts.first().filter(|part| part.is_whole)?;
    Some((&part.table, part.table.passages.as_ref()?))
}

/// The rows of the next page. Empty at the end of the part.
async fn read_page(pages: &mut KeysetPages<'_>, part: &Part) -> Result<Vec<Row>, JobError> {
    match pages.next().await {
        Ok(page) => {
            let rows = page.iter().map(|row| read_row(&part.table, row));
            let rows = rows.collect::<Result<_, _>>();
            Ok(rows.map_err(DatabaseError::during(format!(
                "reading {}",
                part.table.qualified()
            )))?)
        }
        // One of the rows is at fault. Each is read by itself, which quarantines that one alone.
        Err(error) if is_of_one_row(&error) => {
            let keys = pages.next_keys(part.within.as_deref()).await;
            let keys = keys.map_err(|error| {
                let error = JobError::from(error);
                match &part.within {
                    Some(within) => error.with_remedy(format!(
                        "a key of the table, or the condition {}, fails for a row: correct it",
                        within.replace('\n', "")
                    )),
                    None => error.with_remedy(
                        "a key of the table cannot be read: correct it, then set init_failed_at to NULL",
                    ),
                }
            })?;
            let unread = |key| Row::backfill(key, SourceText::Unread);
            Ok(keys.into_iter().map(unread).collect())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a statement failed because of the data of one row, such as a text without a UTF-8 form.
fn is_of_one_row(error: &DatabaseError) -> bool {
    error.code().map(classify) == Some(SqlStateClass::Row)
}

fn read_row(target: &TargetTable, row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    let source = match target.passages.is_some() {
        true => SourceText::Unread,
        false => SourceText::from_row(row, target.key.len())?,
    };
    Ok(Row::backfill(target.read_key(row)?, source))
}

/// Rows that were sent and whose receipts are not back yet.
struct Outstanding<F> {
    sender: mpsc::Sender<Row>,
    finished: mpsc::Receiver<BackfillAck>,
    receipts: Vec<BackfillAck>,
    rows: usize,
    bytes: usize,
    progress: BackfillProgress,
    report: F,
}

impl<F: FnMut(BackfillProgress)> Outstanding<F> {
    fn new(
        sender: mpsc::Sender<Row>,
        finished: mpsc::Receiver<BackfillAck>,
        total: u64,
        mut report: F,
    ) -> Self {
        let progress = BackfillProgress { done: 0, total };
        report(progress);
        Outstanding {
            sender,
            finished,
            receipts: Vec::new(),
            rows: 0,
            bytes: 0,
            progress,
            report,
        }
    }

    /// Sends the rows, unless the scan is stopped meanwhile.
    async fn send_all(
        &mut self,
        rows: Vec<Row>,
        is_stopped: impl Fn() -> bool,
    ) -> Result<(), JobError> {
        for row in rows {
            if is_stopped() {
                break;
            }
            self.send(row).await?;
            failpoint::reach("within-backfill-page");
        }
        Ok(())
    }

    /// Sends a row as soon as there is room for it.
    async fn send(&mut self, row: Row) -> Result<(), JobError> {
        while self.rows >= self.sender.max_capacity() || self.bytes >= MAX_BACKFILL_BYTES {
            self.settle().await?;
        }
        self.rows += 1;
        self.bytes += row.ack.bytes();
        let sent = self.sender.send(row).await;
        sent.map_err(|_| JobError::batcher_stopped())
    }

    async fn settle_all(mut self) -> Result<BackfillProgress, JobError> {
        while self.rows > 0 {
            self.settle().await?;
        }
        Ok(self.progress)
    }

    /// Waits for receipts and takes all that are there.
    async fn settle(&mut self) -> Result<(), JobError> {
        let limit = self.sender.max_capacity();
        if self.finished.recv_many(&mut self.receipts, limit).await == 0 {
            return Err(JobError::batcher_stopped());
        }
        for receipt in self.receipts.drain(..) {
            self.rows -= 1;
            self.bytes -= receipt.bytes;
            self.progress.done += 1;
        }
        (self.report)(self.progress);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_that_is_not_over_is_at_most_99_percent_done() {
        for (done, total, percent) in [(0, 0, 0), (1, 3, 33), (3, 3, 99), (7, 3, 99)] {
            assert_eq!(BackfillProgress { done, total }.percent(), percent);
        }
    }
}
