//! Embedding rows of a table outside of a stream: what `resync`, `retry-failed` and `embed-table` have in common.
//!
//! ```text
//! rows of a scan, or with certain keys ──▶ WritePath ──▶ table
//! ```

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::embedding::{Engine, Model};
use crate::jobs::reporter::Reporter;
use crate::pipeline::backfill::scan::{Backfill, BackfillProgress, Part};
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::chunks::plan::Trust;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::path::{
    BackfillEnds, LiveEnds, MAX_BACKFILL_ROWS, WriteOptions, WritePath,
};
use crate::postgres::{ConnectionString, Session};

/// Which rows to embed and write.
pub enum Rows {
    /// Those that a scan of the table finds.
    Scan(Scan),
    /// Those with these keys, as far as they exist.
    Keys(Vec<Key>),
}

/// A scan of a table.
pub struct Scan {
    /// Which of its rows it is for.
    pub scope: BackfillScope,
    /// SQL over the row `t`: a further condition.
    pub within: Option<String>,
    /// Once it is canceled, no more rows are read, and those that are under way are finished.
    pub stop: CancellationToken,
}

impl Scan {
    /// Of the whole table, to its end.
    pub fn whole(scope: BackfillScope) -> Scan {
        Scan {
            scope,
            within: None,
            stop: CancellationToken::new(),
        }
    }
}

/// What embedding and writing rows takes.
pub struct RowWork {
    /// The session that writes. It holds the locks of the work, if any.
    pub session: Session,
    /// The server that it has reached, as the role that reads and writes rows.
    pub database: ConnectionString,
    /// The target table.
    pub target: Arc<TargetTable>,
    /// The model.
    pub model: Model,
    /// How vectors are written.
    pub options: WriteOptions,
    /// Who is told of rows that cannot be embedded or written.
    pub reporter: Reporter,
}

impl RowWork {
    /// Embeds and writes the rows, and returns how many there were. `report` is told of each step.
    ///
    /// # Errors
    /// Whatever ends a job's attempt. What was written until then stays.
    ///
    /// Cancellation: each write-back under way may or may not commit. The guard makes repeating it harmless.
    pub async fn run(
        self,
        engine: &Engine,
        rows: Rows,
        report: impl FnMut(BackfillProgress),
    ) -> Result<u64, JobError> {
        let target = self.target.clone();
        let mut options = self.options;
        if let Rows::Scan(scan) = &rows
            && scan.scope == BackfillScope::All
        {
            options.trust = Trust::Nothing;
        }
        let path = WritePath::open(self.session, target, &self.model, options, self.reporter);
        let (work, live) = LiveEnds::without_stream();
        let (mut batcher, ends) = path.await?.start(engine, live, Arc::default());

        let (database, target) = (&self.database, self.target);
        let sending = async {
            match rows {
                Rows::Scan(scan) => run_scan(scan, database, target, ends, report).await,
                Rows::Keys(keys) => send_keys(keys, ends, report).await,
            }
        };
        let sent = tokio::select! {
            ended = &mut batcher => return Err(early(ended)),
            sent = sending => sent,
        };
        // Every receipt is back. Without its stream the batcher still notes which rows have left quarantine, then ends.
        drop(work);
        match (sent, batcher.await) {
            (Ok(count), Ok(Ok(()))) => Ok(count),
            (Err(error), Ok(Ok(()))) => Err(error),
            // The scan fails when the batcher does; the batcher's error is the cause.
            (_, ended) => Err(early(ended)),
        }
    }
}

async fn run_scan(
    scan: Scan,
    database: &ConnectionString,
    table: Arc<TargetTable>,
    ends: BackfillEnds,
    report: impl FnMut(BackfillProgress),
) -> Result<u64, JobError> {
    let parts = vec![Part {
        table,
        within: scan.within,
        is_whole: true,
    }];
    let backfill = Backfill::open(database, parts, scan.scope, ends.rows, ends.finished).await?;
    Ok(backfill.until(scan.stop).run(report).await?.done)
}

/// Sends rows whose text the writer reads by their keys, and waits until each is finished.
async fn send_keys(
    keys: Vec<Key>,
    mut ends: BackfillEnds,
    mut report: impl FnMut(BackfillProgress),
) -> Result<u64, JobError> {
    let total = keys.len() as u64;
    let mut done = 0;
    for keys in keys.chunks(MAX_BACKFILL_ROWS) {
        for key in keys {
            let row = Row::backfill(key.clone(), SourceText::Unread);
            let sent = ends.rows.send(row).await;
            sent.map_err(|_| JobError::batcher_stopped())?;
        }
        for _ in keys {
            let receipt = ends.finished.recv().await;
            receipt.ok_or_else(JobError::batcher_stopped)?;
            done += 1;
            report(BackfillProgress { done, total });
        }
    }
    Ok(total)
}

/// Why the batcher ended before its work did.
fn early(ended: Result<Result<(), JobError>, tokio::task::JoinError>) -> JobError {
    match ended {
        Ok(Ok(())) => JobError::batcher_stopped(),
        Ok(Err(error)) => error,
        Err(error) => error.into(),
    }
}
