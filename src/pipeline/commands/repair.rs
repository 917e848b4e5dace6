//! Embedding rows of a job outside of its stream: what the commands `resync` and `retry-failed` do.
//!
//! It goes by the same batcher and the same guarded write-backs as the daemon's own work, so it may run beside it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::embedding::{Engine, Model};
use crate::jobs::reporter::{Answer, ReportMessage, Reporter};
use crate::jobs::{JobId, JobStore, reporter};
use crate::pipeline::backfill::scan as backfill;
use crate::pipeline::backfill::scan::{Backfill, Progress};
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{BackfillAck, Key, Row, SourceText};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::batcher::{Batcher, DEFAULT_BATCH, Ports};
use crate::pipeline::write::quarantine::Quarantine;
use crate::pipeline::write::writer::Writer;
use crate::postgres::ConnectionString;

/// Which rows.
pub enum Rows {
    Scan(BackfillScope),
    Keys(Vec<Key>),
}

/// A job whose rows are to be repaired.
pub struct Repair {
    pub id: JobId,
    pub store: Arc<JobStore>,
    pub database: ConnectionString,
    pub target: Arc<TargetTable>,
    pub model: Model,
}

impl Repair {
    /// Embeds and writes the rows, and returns how many there were. Those that are refused are put aside.
    ///
    /// # Errors
    /// Whatever ends a job's attempt; what was written until then stays.
    pub async fn run(
        self,
        engine: &Engine,
        rows: Rows,
        report: impl FnMut(Progress),
    ) -> Result<u64, JobError> {
        let (sender, messages) = mpsc::channel(16);
        let _answering = AbortOnDropHandle::new(tokio::spawn(answer(self.store, messages)));
        let aside = Quarantine::open(Reporter::new(self.id, sender), self.target.clone()).await;
        let writer =
            Writer::open(&self.database, self.target.clone(), self.model.dimensions()).await?;

        let (live_in, live) = mpsc::channel(1);
        let (live_finished, _live_back) = mpsc::channel(1);
        let (rows_in, backfill) = mpsc::channel(backfill::MOST_ROWS);
        let (backfill_finished, rows_back) = mpsc::channel(backfill::MOST_ROWS);
        let ports = Ports {
            live,
            backfill,
            live_finished,
            backfill_finished,
        };
        let queue = engine.queue(&self.model, backfill::MOST_ROWS);
        let table = self.target.qualified();
        let batcher = Batcher::new(ports, queue, DEFAULT_BATCH, table, aside).run(writer);
        let mut batcher = AbortOnDropHandle::new(tokio::spawn(batcher));

        let work = async {
            match rows {
                Rows::Scan(scope) => {
                    let scan = Backfill::open(
                        &self.database,
                        vec![self.target],
                        scope,
                        rows_in,
                        rows_back,
                    );
                    Ok(scan.await?.run(report).await?.done)
                }
                Rows::Keys(keys) => by_key(keys, rows_in, rows_back).await,
            }
        };
        let done = tokio::select! {
            ended = &mut batcher => return Err(early(ended)),
            done = work => done,
        };
        drop(live_in);
        match (done, batcher.await) {
            (Ok(done), Ok(Ok(()))) => Ok(done),
            (Err(error), Ok(Ok(()))) => Err(error),
            (_, ended) => Err(early(ended)),
        }
    }
}

/// Sends the rows to be read by their keys, and waits for each.
async fn by_key(
    keys: Vec<Key>,
    rows: mpsc::Sender<Row>,
    mut finished: mpsc::Receiver<BackfillAck>,
) -> Result<u64, JobError> {
    let gone = || JobError::Transient("the batcher has stopped".into());
    for keys in keys.chunks(backfill::MOST_ROWS) {
        for key in keys {
            let row = Row::backfill(key.clone(), SourceText::Unread);
            rows.send(row).await.map_err(|_| gone())?;
        }
        for _ in keys {
            finished.recv().await.ok_or_else(gone)?;
        }
    }
    Ok(keys.len() as u64)
}

/// Why the batcher ended before its work did.
fn early(ended: Result<Result<(), JobError>, tokio::task::JoinError>) -> JobError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) => JobError::Transient("the batcher has stopped".into()),
        Err(error) => JobError::Transient(format!("a task ended early: {error}")),
    }
}

/// Serves the reporter with a session of this process's own.
async fn answer(store: Arc<JobStore>, mut messages: mpsc::Receiver<ReportMessage>) {
    while let Some(message) = messages.recv().await {
        let answer = reporter::deliver(&store, &message.job, &message.report)
            .await
            .unwrap_or_else(|error| Answer::Rejected(error.to_string()));
        if let Some(waiting) = message.answer {
            let _ = waiting.send(answer);
        }
    }
}
