//! How a job's progress reaches its row.
//!
//! Only one task has a session to the jobs database: the supervisor, or a command. Jobs send it [`ReportMessage`]s over
//! a channel. So while the jobs database is away, jobs go on with their work and their reports wait.
//!
//! ```text
//! job ── Reporter ──(ReportMessage)──▶ owner of the session ── deliver ──▶ jobs table, failures table
//!  ▲                                        │
//!  └───────────────(Answer)─────────────────┘
//! ```

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::definition::{JobId, JobRow};
use super::edit::EditError;
use super::failures::{Failure, FailuresError};
use super::store::JobStore;
use crate::postgres::{DatabaseError, ServerInstance};
use crate::shown::shown;

/// What a job tells the jobs database, or asks it.
#[derive(Debug)]
pub enum Report {
    /// The job has passed its checks and begins.
    Started,
    /// Every row has to be embedded again.
    StartedAgain,
    /// Percent of the initial backfill.
    Progressed(u8),
    /// The initial backfill is finished.
    Finished,
    /// The job has failed: the reason, for a person.
    Failed(String),
    /// What the start of the job waits for; `None` once it waits no more.
    WaitsFor(Option<String>),
    /// Why the job is interrupted; `None` once it runs.
    Interrupted(Option<String>),
    /// What has become of the index that the job asks for; `None` where it asks for none.
    IndexState(Option<String>),
    /// The question which server has the jobs database.
    AskServer,
    /// The question which other job writes a column of this one, and comes first.
    AskEarlierWriter,
    /// The question for the row of another job.
    AskJob(JobId),
    /// The question which jobs replace this one.
    AskSuccessors,
    /// A job was replaced by another one.
    Replaced {
        /// The job that ends.
        job: JobId,
        /// The job that goes on in its place.
        by: JobId,
    },
    /// A row could not be embedded or written.
    Quarantined(Failure),
    /// The rows with these keys were quarantined, and are written or deleted now.
    Released(Vec<Value>),
    /// The question which rows are quarantined.
    ListFailures,
}

/// The answer to a report.
pub enum Answer {
    /// The database has recorded the report.
    Recorded,
    /// The database cannot record the report: why.
    Rejected(String),
    /// The quarantined rows.
    Failures(Vec<Failure>),
    /// The server of the jobs database.
    Server(ServerInstance),
    /// The other job, if there is one.
    EarlierWriter(Option<JobId>),
    /// The rows that were asked for.
    Jobs(Vec<JobRow>),
}

/// A report on its way to the owner of the session.
pub struct ReportMessage {
    /// The job that reports.
    pub job: JobId,
    /// What it reports.
    pub report: Report,
    /// Where the answer goes, if the job waits for it.
    pub answer: Option<oneshot::Sender<Answer>>,
}

/// Writes a report to the jobs database. Texts for people are written as [`shown`] makes them: servers and users have a
/// part in them, and people read the table on a terminal.
///
/// # Errors
/// The server's. The report is then not delivered, and the call can be repeated.
pub async fn deliver(
    store: &JobStore,
    id: &JobId,
    report: &Report,
) -> Result<Answer, DatabaseError> {
    match report {
        Report::Started => store.started(id).await?,
        Report::StartedAgain => store.started_again(id).await?,
        Report::Progressed(percent) => store.progressed(id, *percent).await?,
        Report::Finished => store.finished(id).await?,
        Report::Failed(reason) => store.failed(id, &shown(reason)).await?,
        Report::WaitsFor(what) => {
            let what = what.as_deref().map(shown);
            store.waits_for(id, what.as_deref()).await?;
        }
        Report::Interrupted(why) => {
            // Of no consequence, so a column of an unsuitable type must not hold up what is.
            let why = why.as_deref().map(shown);
            if let Err(error) = store.interrupted(id, why.as_deref()).await {
                if error.is_transient() {
                    return Err(error);
                }
                tracing::debug!(job = %id, "last_error is not written: {error}");
            }
        }
        Report::IndexState(state) => {
            // As for last_error.
            let state = state.as_deref().map(shown);
            if let Err(error) = store.index_state(id, state.as_deref()).await {
                if error.is_transient() {
                    return Err(error);
                }
                tracing::debug!(job = %id, "index_state is not written: {error}");
            }
        }
        Report::AskServer => {
            return Ok(Answer::Server(ServerInstance::of(store.session()).await?));
        }
        Report::AskEarlierWriter => {
            // The supervisor has the rows, and answers by itself. A command runs no job.
            return Ok(Answer::EarlierWriter(None));
        }
        Report::AskJob(other) => return Ok(Answer::Jobs(store.rows_with_id(other).await?)),
        Report::AskSuccessors => return Ok(Answer::Jobs(store.successors(id).await?)),
        Report::Replaced { job, by } => {
            return match store.note_replaced(job, by).await {
                Ok(()) => Ok(Answer::Recorded),
                Err(EditError::Database(error)) if error.is_transient() => Err(error),
                Err(error) => Ok(Answer::Rejected(format!(
                    "{error}; or cancel the job yourself: {}",
                    store.cancel_statement(job)
                ))),
            };
        }
        // A failures table that the role may not use, or that has other columns, concerns the job that needs it, and
        // not the daemon's session.
        Report::Quarantined(failure) => {
            let failure = &Failure {
                error: shown(&failure.error),
                ..failure.clone()
            };
            return answer_or_reject(
                store
                    .quarantine(id, failure)
                    .await
                    .map(|()| Answer::Recorded),
            );
        }
        Report::Released(keys) => {
            return answer_or_reject(
                store
                    .release(id, Some(keys))
                    .await
                    .map(|()| Answer::Recorded),
            );
        }
        Report::ListFailures => {
            return answer_or_reject(store.failures(id).await.map(Answer::Failures));
        }
    }
    Ok(Answer::Recorded)
}

fn answer_or_reject(result: Result<Answer, FailuresError>) -> Result<Answer, DatabaseError> {
    match result {
        Ok(answer) => Ok(answer),
        Err(error) => match error.into_transient() {
            Ok(transient) => Err(transient),
            Err(error) => Ok(Answer::Rejected(error.to_string())),
        },
    }
}

/// The channel from one job to its row.
///
/// The async methods return once the database has recorded the report, however long the database is away. By then this
/// daemon holds the job's lock, since the session that wrote the row is the one that holds it.
///
/// Cancellation: a report whose future is dropped may be delivered or not.
#[derive(Clone)]
pub struct Reporter {
    job: JobId,
    has_row: bool,
    messages: mpsc::Sender<ReportMessage>,
}

impl Reporter {
    /// A reporter for one job, over the channel to the owner of the session.
    pub fn new(job: JobId, messages: mpsc::Sender<ReportMessage>) -> Self {
        Reporter {
            job,
            has_row: true,
            messages,
        }
    }

    /// A reporter for a command that does the work of a job without a row in a jobs table. The receiver of the messages
    /// keeps what they say.
    pub fn without_row(messages: mpsc::Sender<ReportMessage>) -> Self {
        Reporter {
            job: JobId::new(""),
            has_row: false,
            messages,
        }
    }

    /// Whether there is a row in a jobs table, and a failures table beside it.
    pub fn has_row(&self) -> bool {
        self.has_row
    }

    /// The job that reports.
    pub fn id(&self) -> &JobId {
        &self.job
    }

    /// The job has passed its checks and begins.
    pub async fn started(&self) {
        self.ask(Report::Started).await;
    }

    /// Every row has to be embedded again.
    pub async fn started_again(&self) {
        self.ask(Report::StartedAgain).await;
    }

    /// The initial backfill is finished.
    pub async fn finished(&self) {
        self.ask(Report::Finished).await;
    }

    /// Percent of the initial backfill. Dropped if the channel is full: the next report replaces it anyway.
    pub fn progressed(&self, percent: u8) {
        self.tell(Report::Progressed(percent));
    }

    /// What the start of the job waits for. Dropped if the channel is full, as [`progressed`](Self::progressed).
    pub fn waits_for(&self, what: Option<String>) {
        self.tell(Report::WaitsFor(what));
    }

    /// Why the job is interrupted, or that it runs. Returns false if the channel is full and the report is dropped.
    pub fn interrupted(&self, why: Option<String>) -> bool {
        self.tell(Report::Interrupted(why))
    }

    /// What has become of the job's index so far. Dropped if the channel is full: the next report replaces it anyway.
    pub fn index_state(&self, state: Option<String>) {
        self.tell(Report::IndexState(state));
    }

    /// What has become of the job's index for good.
    pub async fn index_settled(&self, state: String) {
        self.ask(Report::IndexState(Some(state))).await;
    }

    /// The server that has the jobs database now; `None` when the daemon is stopping.
    pub async fn server(&self) -> Option<ServerInstance> {
        match self.ask(Report::AskServer).await {
            Some(Answer::Server(server)) => Some(server),
            _ => None,
        }
    }

    /// Another job that should run, writes a column of this one, and comes first.
    pub async fn earlier_writer(&self) -> Option<JobId> {
        match self.ask(Report::AskEarlierWriter).await {
            Some(Answer::EarlierWriter(first)) => first,
            _ => None,
        }
    }

    /// The row of another job, whatever its label; `None` if there is none, or several.
    pub async fn job(&self, id: &JobId) -> Option<JobRow> {
        match self.ask(Report::AskJob(id.clone())).await {
            Some(Answer::Jobs(mut rows)) if rows.len() == 1 => rows.pop(),
            _ => None,
        }
    }

    /// The jobs that are to replace this one, or have done so.
    pub async fn successors(&self) -> Vec<JobRow> {
        match self.ask(Report::AskSuccessors).await {
            Some(Answer::Jobs(rows)) => rows,
            _ => Vec::new(),
        }
    }

    /// Records that the job `by` has replaced the job `job`, which ends it.
    ///
    /// # Errors
    /// Why that cannot be recorded, and what to do.
    pub async fn replaced(&self, job: &JobId, by: &JobId) -> Result<(), String> {
        let (job, by) = (job.clone(), by.clone());
        match self.ask(Report::Replaced { job, by }).await {
            Some(Answer::Rejected(error)) => Err(error),
            Some(_) => Ok(()),
            None => Err("the daemon is stopping".into()),
        }
    }

    /// Records a row in the failures table.
    ///
    /// # Errors
    /// Why the row cannot be recorded.
    pub async fn quarantine(&self, failure: Failure) -> Result<(), String> {
        match self.ask(Report::Quarantined(failure)).await {
            Some(Answer::Rejected(error)) => Err(error),
            Some(_) => Ok(()),
            None => Err("the daemon is stopping".into()),
        }
    }

    /// Removes rows from the failures table. If this report is lost, `retry-failed` removes them.
    pub async fn release(&self, keys: Vec<Value>) {
        self.ask(Report::Released(keys)).await;
    }

    /// The quarantined rows of the job.
    pub async fn failures(&self) -> Vec<Failure> {
        match self.ask(Report::ListFailures).await {
            Some(Answer::Failures(failures)) => failures,
            Some(Answer::Rejected(error)) => {
                tracing::warn!("the failures table cannot be read: {error}");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn tell(&self, report: Report) -> bool {
        let sent = self.messages.try_send(ReportMessage {
            job: self.job.clone(),
            report,
            answer: None,
        });
        sent.is_ok()
    }

    /// Sends a report and waits for the answer; `None` when the owner of the session has gone.
    async fn ask(&self, report: Report) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let message = ReportMessage {
            job: self.job.clone(),
            report,
            answer: Some(answer),
        };
        self.messages.send(message).await.ok()?;
        answered.await.ok()
    }
}
