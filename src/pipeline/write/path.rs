//! The write path of a job, put together in one place for the daemon and for the commands `resync` and `retry-failed`.
//!
//! ```text
//!                 ┌──────────────────────── WritePath ────────────────────────┐
//! slot reader ──▶ │ LiveEnds ─────┐                                           │
//!      ▲          │               ├─▶ batcher ─▶ engine ─▶ writer ─▶ table    │
//!      └ LiveAck ─│               │      └─▶ quarantine                       │
//! scan ─────────▶ │ BackfillEnds ─┘                                           │
//!      ▲          └───────────────────────────────────────────────────────────┘
//!      └ BackfillAck
//! ```
//!
//! A path is opened first and started later. In between the daemon acquires the fence and joins its slot's reader, so
//! that everything that can fail for good has failed before the first row.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::embedding::{Engine, Model};
use crate::jobs::Definition;
use crate::jobs::reporter::Reporter;
use crate::pipeline::chunks::cutter::Cutter;
use crate::pipeline::chunks::plan::Trust;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::rules::{check_rules, check_rules_of_passages};
use crate::pipeline::table::passages::PassageTable;
use crate::pipeline::table::row::{BackfillAck, LiveAck, Row};
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::write::batcher::Batcher;
use crate::pipeline::write::documents::at_engine::MAX_AT_ENGINE;
use crate::pipeline::write::documents::session::DocumentSession;
use crate::pipeline::write::documents::task::{DocumentOptions, DocumentTask};
use crate::pipeline::write::ports::{Ports, Sinks};
use crate::pipeline::write::quarantine::Quarantine;
use crate::pipeline::write::triggers;
use crate::pipeline::write::truncated_texts::TruncatedTexts;
use crate::pipeline::write::writer::Writer;
use crate::postgres::answer::columns;
use crate::postgres::{DatabaseError, Session};
use crate::splitting::{Mode, Splitting};
use crate::status::JobCounters;

/// Rows in one write-back unless the job says otherwise.
pub const DEFAULT_BATCH_ROWS: usize = 512;
/// The limit of `batch_size`. A larger transaction would only keep more rows locked for longer.
const MAX_BATCH_ROWS: usize = 4096;
/// Rows of a scan that may be outstanding: sent and not finished.
pub const MAX_BACKFILL_ROWS: usize = 4096;

/// How a job wants its vectors written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteOptions {
    /// Rows in one transaction at most, 1 or more.
    pub batch_rows: usize,
    /// Whether write-backs fire no user triggers.
    pub skip_triggers: bool,
    /// Which vectors of stored passages are kept.
    pub trust: Trust,
}

impl WriteOptions {
    /// What the columns `batch_size` and `skip_triggers` of the jobs table say.
    pub fn from_definition(definition: &Definition) -> Self {
        let batch_rows = definition
            .batch_size
            .and_then(|size| usize::try_from(size).ok())
            .map_or(DEFAULT_BATCH_ROWS, |size| size.clamp(1, MAX_BATCH_ROWS));
        WriteOptions {
            batch_rows,
            skip_triggers: definition.skip_triggers,
            trust: match definition.trust_existing {
                true => Trust::Texts,
                false => Trust::Fingerprints,
            },
        }
    }
}

/// The batcher's ends of its channels with the slot reader.
pub struct LiveEnds {
    /// The changes of the stream. Capacity: the most live rows that can be outstanding.
    pub rows: mpsc::Receiver<Row>,
    /// Takes the receipt of each of them.
    pub finished: mpsc::Sender<LiveAck>,
}

impl LiveEnds {
    /// For a command, which has no stream: the batcher works until the returned sender is dropped.
    pub fn without_stream() -> (mpsc::Sender<Row>, LiveEnds) {
        let (sender, rows) = mpsc::channel(1);
        let (finished, _) = mpsc::channel(1);
        (sender, LiveEnds { rows, finished })
    }
}

/// The other ends of the batcher's channels with a scan. Both have room for [`MAX_BACKFILL_ROWS`].
pub struct BackfillEnds {
    /// Takes the rows that a scan finds.
    pub rows: mpsc::Sender<Row>,
    /// Returns the receipt of each of them.
    pub finished: mpsc::Receiver<BackfillAck>,
}

/// What is written, and by which session.
enum Writing {
    /// A vector for each row, into the row.
    Vectors(Writer),
    /// Passages of each document.
    Documents(Box<Documents>),
}

struct Documents {
    session: DocumentSession,
    cutter: Cutter,
    /// The table of passages, quoted.
    table: String,
}

impl Writing {
    fn session(&self) -> &Arc<Session> {
        match self {
            Writing::Vectors(writer) => writer.session(),
            Writing::Documents(documents) => documents.session.session(),
        }
    }
}

/// A write path that is ready to start.
pub struct WritePath {
    writing: Writing,
    quarantine: Quarantine,
    target: Arc<TargetTable>,
    model: Model,
    batch_rows: usize,
    /// The server process of the session, if it runs on this machine.
    server_process: Option<u32>,
}

impl WritePath {
    /// Opens the quarantine, makes `session` the one for write-backs, and prepares its statements.
    ///
    /// # Errors
    /// The server's. Permanent, with the remedy, where the role may not skip triggers, or a rule of the table is in the way.
    pub async fn open(
        session: Session,
        target: Arc<TargetTable>,
        model: &Model,
        options: WriteOptions,
        reporter: Reporter,
    ) -> Result<WritePath, JobError> {
        let quarantine = Quarantine::open(reporter, target.clone()).await;
        if options.skip_triggers {
            triggers::skip(&session).await?;
        }
        let (oid, table) = match &target.passages {
            Some(passages) => (passages.oid, passages.qualified()),
            None => (target.oid, target.qualified()),
        };
        let writing = match &target.passages {
            Some(passages) => {
                let written = (oid, table.as_str());
                check_rules_of_passages(&session, written, options.skip_triggers).await?;
                let dimensions = model.dimensions();
                let renews = options.trust == Trust::Nothing;
                let documents = Documents {
                    cutter: cutter(&target, passages, model, options)?,
                    session: DocumentSession::prepare(
                        session,
                        target.clone(),
                        passages,
                        (dimensions, renews),
                    )
                    .await?,
                    table,
                };
                Writing::Documents(Box::new(documents))
            }
            None => {
                check_rules(&session, (oid, &table), options.skip_triggers).await?;
                let writer = Writer::prepare(session, target.clone(), model.dimensions()).await?;
                Writing::Vectors(writer)
            }
        };
        let server_process = local_process(writing.session()).await?;
        Ok(WritePath {
            server_process,
            writing,
            quarantine,
            target,
            model: model.clone(),
            batch_rows: options.batch_rows,
        })
    }

    /// The session for write-backs. The daemon acquires the fence on it, and its watchdog shares it.
    pub fn session(&self) -> &Arc<Session> {
        self.writing.session()
    }

    /// Starts the batcher as a task of its own, in the current tracing span. What becomes of rows is counted in `counters`.
    ///
    /// The task ends well when the sender of `live.rows` is dropped, and with the first error that ends the attempt.
    /// Dropping the handle aborts it: rows whose receipts are not out are then neither lost nor finished, and come
    /// again.
    pub fn start(
        self,
        engine: &Engine,
        live: LiveEnds,
        counters: Arc<JobCounters>,
    ) -> (AbortOnDropHandle<Result<(), JobError>>, BackfillEnds) {
        let (rows, backfill) = mpsc::channel(MAX_BACKFILL_ROWS);
        let (backfill_finished, finished) = mpsc::channel(MAX_BACKFILL_ROWS);
        let outstanding = match &self.writing {
            // Every outstanding row may have its text at the engine.
            Writing::Vectors(_) => live.rows.max_capacity() + MAX_BACKFILL_ROWS,
            Writing::Documents(_) => MAX_AT_ENGINE,
        };
        let engine_ends = engine.queue(&self.model, outstanding, counters.embedding.clone());
        let ports = Ports {
            live: live.rows,
            backfill,
            live_finished: live.finished,
            backfill_finished,
        };
        let sinks = Sinks {
            quarantine: self.quarantine,
            truncated: TruncatedTexts::of_job(&self.model, &self.target, counters.clone()),
            counters,
        };
        // What write-backs use of the processors is not what others use.
        let processes = engine.own_processes();
        let own = self
            .server_process
            .and_then(|pid| processes.add(pid, "postgres"));
        let (batch_rows, target) = (self.batch_rows, self.target);
        let dimensions = self.model.dimensions();
        let task = async move {
            let _listed = own;
            match self.writing {
                Writing::Vectors(writer) => {
                    let batcher = Batcher::new(ports, engine_ends, batch_rows, target, sinks);
                    batcher.run(writer).await
                }
                Writing::Documents(documents) => {
                    let options = DocumentOptions {
                        batch_rows,
                        dimensions,
                        cutter: documents.cutter,
                    };
                    let written = (target, documents.table);
                    let task = DocumentTask::new(ports, engine_ends, options, written, sinks);
                    task.run(documents.session).await
                }
            }
        };
        let task = tokio::spawn(task.in_current_span());
        let ends = BackfillEnds { rows, finished };
        (AbortOnDropHandle::new(task), ends)
    }
}

/// How the documents of a job are cut for its model.
fn cutter(
    target: &TargetTable,
    passages: &PassageTable,
    model: &Model,
    options: WriteOptions,
) -> Result<Cutter, JobError> {
    let cutting = &passages.cutting;
    let mode = cutting.mode.parse::<Mode>();
    let splitting = Splitting {
        mode: mode.map_err(|error| JobError::permanent(format!("chunk_mode: {error}")))?,
        max_tokens: cutting.max_tokens,
        overlap: cutting.overlap,
    };
    let counter = model.text_tokens();
    let tokens = Arc::new(move |text: &str| counter.count(text));
    let template = target.source.template.as_ref();
    Ok(Cutter::new(
        splitting,
        tokens,
        passages,
        template,
        options.trust,
    ))
}

/// The process of this session on the server, if both are on one machine. An SSH tunnel looks like that, too; so the
/// user of the process id compares the name of the process.
async fn local_process(session: &Session) -> Result<Option<u32>, DatabaseError> {
    let (pid, is_local): (i32, bool) = session
        .query_one(
            "SELECT pg_backend_pid(), inet_server_addr() IS NOT DISTINCT FROM inet_client_addr()",
            &[],
        )
        .await
        .and_then(|row| columns(&row))
        .map_err(DatabaseError::during("asking for the session's process"))?;
    Ok(u32::try_from(pid).ok().filter(|_| is_local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobRow;

    #[test]
    fn a_batch_has_between_one_and_4096_rows() {
        let mut definition = JobRow::example("1").definition;
        for (size, rows) in [
            (None, DEFAULT_BATCH_ROWS),
            (Some(7), 7),
            (Some(0), 1),
            (Some(1 << 40), MAX_BATCH_ROWS),
            (Some(-1), DEFAULT_BATCH_ROWS),
        ] {
            definition.batch_size = size;
            let options = WriteOptions::from_definition(&definition);
            assert_eq!(options.batch_rows, rows, "{size:?}");
        }
    }
}
