//! The rows that a command without a failures table could not embed or write.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::jobs::failures::Failure;
use crate::jobs::reporter::{Answer, Report, ReportMessage};

/// Keeps them for as long as the command runs.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Vec<Failure>>>);

impl Failures {
    /// Does what the owner of the jobs table's session does for a job: takes notes, and answers.
    pub async fn answer(self, mut messages: mpsc::Receiver<ReportMessage>) {
        while let Some(message) = messages.recv().await {
            let answer = match message.report {
                Report::Quarantined(failure) => self.add(failure),
                Report::Released(keys) => self.release(&keys),
                Report::ListFailures => Answer::Failures(Vec::new()),
                _ => Answer::Recorded,
            };
            if let Some(waiting) = message.answer {
                // Without a receiver the command is over.
                let _ = waiting.send(answer);
            }
        }
    }

    /// The rows that have failed until now.
    pub fn take(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.rows())
    }

    fn add(&self, failure: Failure) -> Answer {
        let mut rows = self.rows();
        rows.retain(|earlier| earlier.key != failure.key);
        rows.push(failure);
        Answer::Recorded
    }

    /// The row was written after all: it had changed meanwhile.
    fn release(&self, keys: &[Value]) -> Answer {
        self.rows().retain(|failure| !keys.contains(&failure.key));
        Answer::Recorded
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, Vec<Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
