//! Embedding rows of a job outside of its stream: what the commands `resync` and `retry-failed` do.
//!
//! ```text
//! rows of a scan, or of the failures table ──▶ WritePath ──▶ table
//! ```
//!
//! The rows take the daemon's own write path, so a command may run beside the daemon: the guard of each write-back
//! drops what the other one has written meanwhile. The fence is the daemon's alone. A command that acquired it would
//! end the daemon's session.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::embedding::{Engine, Model};
use crate::jobs::reporter::{self, Answer, ReportMessage, Reporter};
use crate::jobs::{JobRow, JobStore};
use crate::pipeline::backfill::scan::{Backfill, BackfillProgress, Part};
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::path::{
    BackfillEnds, LiveEnds, MAX_BACKFILL_ROWS, WriteOptions, WritePath,
};
use crate::postgres::{ConnectionString, Session};

/// Which rows of the job to embed and write.
pub enum Rows {
    /// Those that a scan of the table finds.
    Scan(BackfillScope),
    /// Those with these keys, as far as they exist.
    Keys(Vec<Key>),
}

/// A job, with everything that embedding its rows takes.
pub struct Repair {
    /// The job's row in the jobs table.
    pub row: JobRow,
    /// Where the failures table is.
    pub store: Arc<JobStore>,
    /// The target database, as the role that reads and writes rows.
    pub database: ConnectionString,
    /// The target table.
    pub target: Arc<TargetTable>,
    /// The job's model.
    pub model: Model,
}

impl Repair {
    /// Embeds and writes the rows, and returns how many there were. Rows that cannot be embedded or written are
    /// quarantined. `report` is told of each step.
    ///
    /// # Errors
    /// Whatever ends a job's attempt. What was written until then stays.
    pub async fn run(
        self,
        engine: &Engine,
        rows: Rows,
        report: impl FnMut(BackfillProgress),
    ) -> Result<u64, JobError> {
        let (sender, messages) = mpsc::channel(16);
        let _answering = AbortOnDropHandle::new(tokio::spawn(answer(self.store, messages)));
        let reporter = Reporter::new(self.row.id, sender);
        let options = WriteOptions::from_definition(&self.row.definition);
        let session = Session::open(&self.database).await?;
        let target = self.target.clone();
        let path = WritePath::open(session, target, &self.model, options, reporter).await?;
        let (work, live) = LiveEnds::without_stream();
        let (mut batcher, ends) = path.start(engine, live, Arc::default());

        let sending = async {
            match rows {
                Rows::Scan(scope) => {
                    let parts = vec![Part::whole(self.target)];
                    let scan =
                        Backfill::open(&self.database, parts, scope, ends.rows, ends.finished);
                    Ok(scan.await?.run(report).await?.done)
                }
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

/// Does what the supervisor does in the daemon: writes reports into the jobs database, with this process's own session.
async fn answer(store: Arc<JobStore>, mut messages: mpsc::Receiver<ReportMessage>) {
    while let Some(message) = messages.recv().await {
        let answer = reporter::deliver(&store, &message.job, &message.report)
            .await
            .unwrap_or_else(|error| Answer::Rejected(error.to_string()));
        if let Some(waiting) = message.answer {
            // Without a receiver the command is over.
            let _ = waiting.send(answer);
        }
    }
}
