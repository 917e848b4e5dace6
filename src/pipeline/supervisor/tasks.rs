//! The supervisor's tasks: each comes to an outcome, even if it panics.
//!
//! A job holds an advisory lock from its start until the supervisor has handled the outcome of its last task. If a
//! panic made an outcome disappear, the lock would be held for the rest of the daemon's life, and no daemon could run
//! the job. So each task is spawned together with the outcome that its panic amounts to.

use std::any::Any;
use std::collections::HashMap;

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tracing::{Instrument, Span};

use crate::jobs::definition::JobId;
use crate::pipeline::job::state::JobEnd;
use crate::pipeline::supervisor::orphans::Candidate;
use crate::replication::SlotName;

/// What a task came to.
pub(super) enum TaskOutcome {
    /// A job has ended.
    JobEnded(JobId, JobEnd),
    /// The teardown of a job has ended.
    TornDown(JobId, Removal),
    /// Slots that may belong to no job.
    OrphansListed(Vec<Candidate>),
    /// The orphan search has ended.
    OrphansRemoved,
    /// A teardown has ended that holds no lock.
    ParkedTornDown,
    /// Whether the job with this own slot has confirmed everything; false if the task has panicked.
    Awaited(SlotName, bool),
}

/// What a teardown has removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// A slot or a publication, or the job's part in shared ones.
    Removed,
    /// Nothing: nothing was there, or it cannot be removed.
    Nothing,
    /// The teardown was recalled while it waited.
    Recalled,
    /// The teardown has panicked, so this is not known.
    Unknown,
}

/// The outcome of a task that has panicked.
type OnPanic = Box<dyn FnOnce() -> TaskOutcome + Send>;

/// A set of running tasks.
#[derive(Default)]
pub(super) struct TaskSet {
    tasks: JoinSet<TaskOutcome>,
    on_panic: HashMap<Id, (Span, OnPanic)>,
}

impl TaskSet {
    /// Runs `work` as a task in this span. If it panics, `on_panic` makes its outcome; the message is logged.
    pub fn spawn(
        &mut self,
        span: Span,
        work: impl Future<Output = TaskOutcome> + Send + 'static,
        on_panic: impl FnOnce() -> TaskOutcome + Send + 'static,
    ) -> AbortHandle {
        let task = self.tasks.spawn(work.instrument(span.clone()));
        self.on_panic.insert(task.id(), (span, Box::new(on_panic)));
        task
    }

    /// Waits for the outcome of the next task that ends. Aborted tasks have none. `None` when no task is left.
    ///
    /// Cancellation safe.
    pub async fn next(&mut self) -> Option<TaskOutcome> {
        loop {
            match self.tasks.join_next_with_id().await? {
                Ok((id, outcome)) => {
                    self.on_panic.remove(&id);
                    return Some(outcome);
                }
                Err(error) => {
                    if let Some(outcome) = self.outcome_of(error) {
                        return Some(outcome);
                    }
                }
            }
        }
    }

    /// Aborts all tasks and waits for their ends.
    pub async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
        self.on_panic.clear();
    }

    fn outcome_of(&mut self, error: JoinError) -> Option<TaskOutcome> {
        let (span, on_panic) = self.on_panic.remove(&error.id())?;
        let message = message(&*error.try_into_panic().ok()?);
        span.in_scope(|| {
            tracing::error!(
                "a task panicked: {message}; this is a bug in lantern-cli, please report it with the log"
            );
        });
        Some(on_panic())
    }
}

/// The message of a panic. `panic!` makes a `&str` of a literal and a `String` of anything else.
fn message(payload: &(dyn Any + Send)) -> String {
    let literal = payload.downcast_ref::<&str>().copied();
    let message = literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn torn_down(tasks: &mut TaskSet) -> (String, Removal) {
        match tasks.next().await {
            Some(TaskOutcome::TornDown(id, removal)) => (id.to_string(), removal),
            _ => panic!("no teardown has ended"),
        }
    }

    fn spawn(
        tasks: &mut TaskSet,
        id: &'static str,
        work: impl Future<Output = Removal> + Send + 'static,
    ) -> AbortHandle {
        let outcome = move |removal| TaskOutcome::TornDown(JobId::new(id), removal);
        let work = async move { outcome(work.await) };
        tasks.spawn(Span::none(), work, move || outcome(Removal::Unknown))
    }

    #[tokio::test]
    async fn a_task_that_panics_has_an_outcome_too() {
        let mut tasks = TaskSet::default();
        spawn(&mut tasks, "1", async { panic!("a planted panic") });
        assert_eq!(torn_down(&mut tasks).await, ("1".into(), Removal::Unknown));
        // A panic while the future of the task is dropped counts as well.
        struct PanicsWhenDropped;
        impl Drop for PanicsWhenDropped {
            fn drop(&mut self) {
                panic!("a planted panic in a destructor");
            }
        }
        let guard = PanicsWhenDropped;
        spawn(&mut tasks, "2", async move {
            let _guard = guard;
            Removal::Removed
        });
        assert_eq!(torn_down(&mut tasks).await, ("2".into(), Removal::Unknown));
        assert!(tasks.next().await.is_none());
        assert!(tasks.on_panic.is_empty());
    }

    #[tokio::test]
    async fn other_tasks_are_not_affected_by_a_panic() {
        let mut tasks = TaskSet::default();
        spawn(&mut tasks, "1", async { panic!("a planted panic") });
        torn_down(&mut tasks).await;
        spawn(&mut tasks, "2", async { Removal::Removed });
        assert_eq!(torn_down(&mut tasks).await, ("2".into(), Removal::Removed));
    }

    #[tokio::test]
    async fn an_aborted_task_has_no_outcome() {
        let mut tasks = TaskSet::default();
        spawn(&mut tasks, "1", std::future::pending()).abort();
        assert!(tasks.next().await.is_none());
        assert!(tasks.on_panic.is_empty());
    }
}
