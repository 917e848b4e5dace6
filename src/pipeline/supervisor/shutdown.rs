//! The end of the daemon: each job finishes what is under way, and its lock is released at once, so that another daemon
//! can claim it.

use std::time::Duration;

use crate::jobs::definition::JobId;
use crate::jobs::lock::JobsLock;
use crate::jobs::{lock, presence};
use crate::pipeline::job::state::JobEnd;
use crate::pipeline::supervisor::state::{AfterEnd, Supervisor};
use crate::pipeline::supervisor::tasks::TaskOutcome;
use crate::plural::form;
use crate::postgres::DatabaseError;

/// How long jobs have to finish what is under way.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_millis(8500);

impl Supervisor {
    /// Waits until all jobs have stopped, or [`STOP_TIMEOUT`] has passed.
    pub(super) async fn shut_down(mut self) {
        tracing::info!(
            "stopping: finishing what is under way in {} {}",
            self.running.len(),
            form(self.running.len(), "job", "jobs")
        );
        let finished = tokio::time::timeout(STOP_TIMEOUT, self.finish_jobs()).await;
        if finished.is_err() {
            tracing::warn!(
                "{} {} from the confirmed position at the next start",
                self.running.len(),
                form(
                    self.running.len(),
                    "job did not stop in time; it continues",
                    "jobs did not stop in time; they continue"
                )
            );
        }
        self.tasks.shutdown().await;
        let embedded = self.engine.embedded_texts();
        let computed = self.engine.computed_texts();
        tracing::info!(
            "stopped; {embedded} {}, of which {computed} {} computed",
            form(embedded, "text got its vector", "texts got vectors"),
            form(computed, "was", "were")
        );
    }

    /// Does not wait for teardowns: a target that cannot be reached would hold up the end. The next daemon does them.
    async fn finish_jobs(&mut self) {
        if let Err(error) = presence::leave(&self.store).await {
            tracing::debug!("{error}");
        }
        while !self.running.is_empty() {
            let written = tokio::select! {
                Some(message) = self.messages.recv() => {
                    self.accept(message);
                    self.write_reports().await
                }
                Some(outcome) = self.tasks.next() => match outcome {
                    TaskOutcome::JobEnded(id, ended) => self.job_stopped(id, ended).await,
                    _ => Ok(()),
                },
            };
            if let Err(error) = written {
                tracing::warn!("not written to the jobs table: {error}");
                self.unwritten.clear();
            }
        }
    }

    async fn job_stopped(&mut self, id: JobId, ended: JobEnd) -> Result<(), DatabaseError> {
        let running = self.running.remove(&id);
        let Some(running) = running.filter(|running| running.after_end != AfterEnd::Forget) else {
            return Ok(());
        };
        self.record_end(&id, running).await?;
        if let JobEnd::Failed(reason) = ended {
            // The lock stays until the session ends: there is no time for the teardown, which the next daemon does.
            self.report_failure(&id, reason);
            return self.write_reports().await;
        }
        self.write_reports().await?;
        lock::unlock(&self.store, JobsLock::Job(&id)).await?;
        self.release_shared_slots().await
    }
}
