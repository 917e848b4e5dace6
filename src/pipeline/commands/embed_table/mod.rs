//! Embedding a table once, without a job: what the command `embed-table` does.
//!
//! ```text
//! Request ──open──▶ OpenTable ──▶ PlannedTable ──complete──▶ EmbedTable ──run──▶ Outcome
//!           look     with the      count          create missing         scan, embed,
//!           at all   dimensions:                  columns, take          write
//!                    look again                   their locks
//! ```
//!
//! There is no slot, no publication and no jobs table, so the server needs no `wal_level = logical` and the role no
//! REPLICATION. What is left is a scan and the daemon's write path, with its guard: a row that changes meanwhile never
//! gets the vector of its old text. A vector, or a fingerprint, tells that its row is done, so the same command goes on
//! where one was interrupted.
//!
//! | file | holds |
//! | --- | --- |
//! | [`look`] | what the command needs of server, role and table; changes nothing |
//! | [`planned`] | the table with its model: what is missing, how much is to do |
//! | [`failures`] | the rows that could not be embedded or written |
//! | [`index`] | the index of the vectors |

pub mod failures;
pub mod index;
pub mod look;
pub mod planned;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::failures::Failures;
use crate::embedding::{Engine, Model};
use crate::jobs::Definition;
use crate::jobs::failures::Failure;
use crate::jobs::reporter::Reporter;
use crate::pipeline::backfill::scan::BackfillProgress;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::commands::row_work::{RowWork, Rows, Scan};
use crate::pipeline::error::JobError;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::path::WriteOptions;
use crate::postgres::{ConnectionString, Session};

/// How long the rows under way may take to finish once the work is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for.
pub struct Request {
    /// The table, its columns, the model and how vectors are written, as in a row of a jobs table.
    pub definition: Definition,
    /// SQL over the row `t`: only rows for which it is true.
    pub within: Option<String>,
    /// Every row, whatever its vector is.
    pub all: bool,
}

/// A table that can be embedded now: its columns exist, and no job writes them.
pub struct EmbedTable {
    session: Session,
    database: ConnectionString,
    target: Arc<TargetTable>,
    model: Model,
    options: WriteOptions,
    scope: BackfillScope,
    within: Option<String>,
}

/// What has come of it.
pub struct Outcome {
    /// Rows that were finished, with those that have failed.
    pub done: u64,
    /// Rows that could not be embedded or written.
    pub failed: Vec<Failure>,
    /// It was stopped before its end.
    pub is_stopped: bool,
}

impl EmbedTable {
    /// The table, with its columns.
    pub fn target(&self) -> &Arc<TargetTable> {
        &self.target
    }

    /// Which rows it is for.
    pub fn scope(&self) -> BackfillScope {
        self.scope
    }

    /// Embeds and writes the rows. Once `stop` is canceled, rows that are under way are finished, for a while.
    ///
    /// # Errors
    /// Whatever ends a job's attempt. What was written until then stays.
    ///
    /// Cancellation: as [`RowWork::run`].
    pub async fn run(
        self,
        engine: &Engine,
        stop: CancellationToken,
        mut report: impl FnMut(BackfillProgress),
    ) -> Result<Outcome, JobError> {
        let (sender, messages) = mpsc::channel(16);
        let failures = Failures::default();
        let _answering = AbortOnDropHandle::new(tokio::spawn(failures.clone().answer(messages)));
        let work = RowWork {
            session: self.session,
            database: self.database,
            target: self.target,
            model: self.model,
            options: self.options,
            reporter: Reporter::without_row(sender),
        };
        let scan = Scan {
            scope: self.scope,
            within: self.within,
            stop: stop.clone(),
        };
        let done = AtomicU64::new(0);
        let report = |progress: BackfillProgress| {
            done.store(progress.done, Ordering::Relaxed);
            report(progress);
        };
        tokio::select! {
            worked = work.run(engine, Rows::Scan(scan), report) => { worked?; }
            () = timed_out(&stop) => {}
        }
        Ok(Outcome {
            done: done.load(Ordering::Relaxed),
            failed: failures.take(),
            is_stopped: stop.is_cancelled(),
        })
    }
}

/// Returns a while after the work was stopped.
async fn timed_out(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_TIMEOUT).await;
}
