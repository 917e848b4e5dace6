//! How a job's progress gets into its row: by way of the supervisor, which owns the session to the jobs database.

use tokio::sync::{mpsc, oneshot};

use crate::jobs::JobId;

/// What a job has to say to the jobs table.
#[derive(Debug, Clone)]
pub enum Report {
    Started,
    StartedAgain,
    Progressed(u8),
    Finished,
    Failed(String),
}

/// A report on its way, and who waits for it to be written.
pub type Message = (JobId, Report, Option<oneshot::Sender<()>>);

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

    /// Each of these returns once the row says so, however long the jobs database takes.
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
        let _ = self
            .messages
            .try_send((self.id.clone(), Report::Progressed(percent), None));
    }

    async fn tell(&self, report: Report) {
        let (done, written) = oneshot::channel();
        if self
            .messages
            .send((self.id.clone(), report, Some(done)))
            .await
            .is_ok()
        {
            let _ = written.await;
        }
    }
}
