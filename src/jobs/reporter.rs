//! How a job's progress gets into its row, and what else it has to note: by way of whoever owns the session to the jobs
//! database.

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::jobs::failures::Failure;
use crate::jobs::{JobId, JobStore};
use crate::postgres::DatabaseError;

/// What a job has to say to the jobs database, or wants to know from it.
#[derive(Debug)]
pub enum Report {
    Started,
    StartedAgain,
    Progressed(u8),
    Finished,
    Failed(String),
    /// What holds up the start of the job, or that nothing does any more.
    WaitsFor(Option<String>),
    /// A row could not be embedded or written. The answer is why it cannot be noted, should that be so.
    Quarantine(Failure),
    /// Rows that were aside are done or gone.
    TakenBack(Vec<Value>),
    /// Which rows are aside?
    Failures,
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    Noted,
    Refused(String),
    Failures(Vec<Failure>),
}

/// A report on its way, and who waits for its answer.
pub type Message = (JobId, Report, Option<oneshot::Sender<Answer>>);

/// Writes a report into the jobs database.
///
/// # Errors
/// The server's; then the report is still to be delivered.
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
        Report::Failed(reason) => store.failed(id, reason).await?,
        Report::WaitsFor(what) => store.waits_for(id, what.as_deref()).await?,
        Report::Quarantine(failure) => match store.put_aside(id, failure).await {
            Err(error) if !error.is_transient() => return Ok(Answer::Refused(error.to_string())),
            put => put?,
        },
        Report::TakenBack(keys) => store.take_back(id, Some(keys)).await?,
        Report::Failures => return Ok(Answer::Failures(store.failures(id).await?)),
    }
    Ok(Answer::Noted)
}

/// The way of one job to its row.
#[derive(Clone)]
pub struct Reporter {
    id: JobId,
    messages: mpsc::Sender<Message>,
}

impl Reporter {
    pub fn new(id: JobId, messages: mpsc::Sender<Message>) -> Self {
        Reporter { id, messages }
    }

    /// Each of these returns once the row says so, however long the jobs database takes. Then the job's lock is ours.
    pub async fn started(&self) {
        self.tell(Report::Started).await;
    }

    pub async fn started_again(&self) {
        self.tell(Report::StartedAgain).await;
    }

    pub async fn finished(&self) {
        self.tell(Report::Finished).await;
    }

    /// A figure that the next one replaces: left out when the way is busy.
    pub fn progressed(&self, percent: u8) {
        let report = Report::Progressed(percent);
        let _ = self.messages.try_send((self.id.clone(), report, None));
    }

    /// Left out when the way is busy, as [`progressed`](Self::progressed).
    pub fn waits_for(&self, what: Option<String>) {
        let report = Report::WaitsFor(what);
        let _ = self.messages.try_send((self.id.clone(), report, None));
    }

    /// Returns once the failure is noted.
    ///
    /// # Errors
    /// Why the failures table does not take it.
    pub async fn put_aside(&self, failure: Failure) -> Result<(), String> {
        match self.tell(Report::Quarantine(failure)).await {
            Some(Answer::Refused(error)) => Err(error),
            Some(_) => Ok(()),
            None => Err("the daemon is stopping".into()),
        }
    }

    /// Rows that were aside are done. Should this get lost, `retry-failed` finds them so.
    pub async fn take_back(&self, keys: Vec<Value>) {
        self.tell(Report::TakenBack(keys)).await;
    }

    pub async fn failures(&self) -> Vec<Failure> {
        match self.tell(Report::Failures).await {
            Some(Answer::Failures(failures)) => failures,
            _ => Vec::new(),
        }
    }

    /// `None` when nobody listens any more.
    async fn tell(&self, report: Report) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.messages
            .send((self.id.clone(), report, Some(answer)))
            .await
            .ok()?;
        answered.await.ok()
    }
}
