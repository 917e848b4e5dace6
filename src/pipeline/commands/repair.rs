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
use crate::pipeline::backfill::scan::BackfillProgress;
use crate::pipeline::changeover::stage;
use crate::pipeline::commands::row_work::{RowWork, Rows};
use crate::pipeline::error::JobError;
use crate::pipeline::slot::session_locks;
use crate::pipeline::table::passages::PassageCheck;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::path::WriteOptions;
use crate::postgres::quote::identifier;
use crate::postgres::{ConnectionString, DatabaseError, Session};

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
    /// The number of its destination.
    pub number: i16,
    /// The job's model.
    pub model: Model,
}

impl Repair {
    /// Embeds and writes the rows, and returns how many there were. Rows that cannot be embedded or written are
    /// quarantined.
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
        let session = Session::open(&self.database).await?;
        claim_column(&session, &self.target, self.number).await?;
        let work = RowWork {
            session,
            database: self.database,
            target: looking_at_each_passage(self.target),
            model: self.model,
            options: WriteOptions::from_definition(&self.row.definition),
            reporter: Reporter::new(self.row.id, sender),
        };
        work.run(engine, rows, report).await
    }
}

/// The same table, of which a document counts as right only if each of its passages does: what somebody has done to one
/// shows in no fingerprint of the document.
fn looking_at_each_passage(mut target: Arc<TargetTable>) -> Arc<TargetTable> {
    if target.passages.is_some()
        && let Some(passages) = &mut Arc::make_mut(&mut target).passages
    {
        passages.check = PassageCheck::EachPassage;
    }
    target
}

/// Keeps the column from being exchanged for that of another model while this session writes into it: write-backs name it.
async fn claim_column(
    session: &Session,
    target: &TargetTable,
    number: i16,
) -> Result<(), JobError> {
    let table = target.written();
    let key = session_locks::column_of_command(table.oid, number);
    session
        .execute("SELECT pg_advisory_lock_shared($1)", &[&key])
        .await
        .map_err(DatabaseError::during("claiming the column of the job"))?;
    let name = &target.destination.name;
    match stage::number(session, table.oid, name).await? {
        Some(now) if now == number => Ok(()),
        _ => Err(JobError::Transient(format!(
            "the column {}.{} was exchanged for another one just now; run the command again",
            table.qualified(),
            identifier(name)
        ))),
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
