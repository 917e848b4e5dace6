//! What is said of a job that is interrupted: in the log, and in its row for those who do not read the log.
//!
//! ```text
//! the server is away      each attempt in the log; the row: why
//! access is refused, or   once in the log, again when the reason changes, and once an hour; the row: why
//! another one works here
//! the job runs again      in the log if it had to wait; the row: NULL
//! ```

use std::time::Duration;

use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::reminder::Reminder;

/// The current interruption of a job, if there is one.
pub struct Interruption {
    reporter: Reporter,
    reminder: Reminder,
    /// What the row says.
    recorded: Option<String>,
}

impl Interruption {
    /// None yet.
    pub fn new(reporter: Reporter) -> Self {
        Interruption {
            reporter,
            reminder: Reminder::default(),
            recorded: None,
        }
    }

    /// An attempt has ended, and the next one begins after `pause`.
    pub fn retry(&mut self, error: &JobError, pause: Duration) {
        tracing::warn!("interrupted, retrying in {} ms: {error}", pause.as_millis());
        self.record(&error.to_string());
    }

    /// The job waits until a person has done something elsewhere.
    pub fn wait(&mut self, why: &str, pause: Duration) {
        if self.reminder.is_due(why) {
            tracing::warn!("waiting: {why}");
        } else {
            tracing::debug!(
                "still waiting, looking again in {} ms: {why}",
                pause.as_millis()
            );
        }
        self.record(why);
    }

    /// The job runs.
    pub fn end(&mut self) {
        if self.reminder.end() {
            tracing::info!("the job runs again");
        }
        // Another daemon may have written the row: it is cleared even if nothing was recorded here.
        if self.reporter.interrupted(None) {
            self.recorded = None;
        }
    }

    fn record(&mut self, why: &str) {
        if self.recorded.as_deref() != Some(why) && self.reporter.interrupted(Some(why.to_owned()))
        {
            self.recorded = Some(why.to_owned());
        }
    }
}
