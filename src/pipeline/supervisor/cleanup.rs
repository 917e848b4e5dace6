//! What follows when a job ends, or has to end.
//!
//! ```text
//! how the job ended              what follows
//! ─────────────────────────────  ──────────────────────────────────────────────────────
//! the daemon stops, restart,     the lock is released; slot and publication stay
//! handed over
//! canceled, deleted, replaced    teardown, then the lock is released
//! failed                         teardown; the reason is written; the lock is released
//! another daemon has its lock    nothing
//! ```

use std::collections::BTreeSet;

use crate::jobs::definition::{JobId, JobRow};
use crate::jobs::lock::JobsLock;
use crate::jobs::reporter::{Report, ReportMessage};
use crate::jobs::{lock, reporter};
use crate::pipeline::job::state::JobEnd;
use crate::pipeline::slot::names;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::supervisor::options::SlotAllocation;
use crate::pipeline::supervisor::orphans::Candidate;
use crate::pipeline::supervisor::state::{
    AfterEnd, Leftovers, OrphanSearch, Supervisor, TearingDown,
};
use crate::pipeline::supervisor::tasks::{Removal, TaskOutcome};
use crate::pipeline::supervisor::{orphans, teardown};
use crate::postgres::DatabaseError;
use crate::replication::SlotName;

impl Supervisor {
    /// Stops the job defined by `row`, here or on another daemon, and removes its slot and publication.
    pub(super) fn end(&mut self, row: JobRow) {
        match self.running.get_mut(&row.id) {
            Some(running) => running.end(AfterEnd::TearDown),
            None => {
                let leftovers = self.leftovers.entry(row.id.clone()).or_default();
                leftovers.rows.push(row);
            }
        }
    }

    /// Removes what is left of a job. This daemon holds the job's lock until that is done.
    pub(super) fn tear_down(&mut self, id: JobId, leftovers: Leftovers) {
        let identity = self.store.table().identity();
        let label = self.options.label.clone();
        let turns = self.teardown_turns.clone();
        let allowed = self.options.allowed_hosts.clone();
        let rows = leftovers.rows.clone();
        let (ended_id, panicked_id) = (id.clone(), id.clone());
        let work = async move {
            let mut removal = Removal::Nothing;
            for row in rows {
                let names = JobNames::new(identity, label.as_deref(), &row);
                if teardown::run(&row, &names, &allowed, &turns).await {
                    tracing::info!("slot and publication are gone");
                    removal = Removal::Removed;
                }
            }
            TaskOutcome::TornDown(ended_id, removal)
        };
        let task = self
            .tasks
            .spawn(tracing::info_span!("job", job = %id), work, move || {
                TaskOutcome::TornDown(panicked_id, Removal::Unknown)
            });
        self.tearing_down
            .insert(id, TearingDown { leftovers, task });
    }

    /// Handles the end of a task.
    pub(super) async fn handle(&mut self, outcome: TaskOutcome) -> Result<(), DatabaseError> {
        match outcome {
            TaskOutcome::JobEnded(id, ended) => self.job_ended(id, ended).await,
            TaskOutcome::TornDown(id, removal) => self.torn_down(id, removal).await,
            // These two go on at the next poll, which can be repeated if the jobs database fails in the middle.
            TaskOutcome::OrphansListed(candidates) => {
                self.orphan_search = OrphanSearch::Listed(candidates);
                Ok(())
            }
            TaskOutcome::OrphansRemoved => {
                self.orphan_search = OrphanSearch::Removed;
                Ok(())
            }
        }
    }

    async fn job_ended(&mut self, id: JobId, ended: JobEnd) -> Result<(), DatabaseError> {
        let Some(running) = self.running.remove(&id) else {
            return Ok(());
        };
        match (ended, running.after_end) {
            (_, AfterEnd::Forget) => Ok(()),
            (JobEnd::Stopped, _)
            | (_, AfterEnd::ReleaseLock)
            | (JobEnd::Canceled, AfterEnd::HandOver(_)) => {
                lock::unlock(&self.store, JobsLock::Job(&id)).await
            }
            (JobEnd::Canceled, _) | (_, AfterEnd::TearDown) => {
                tracing::info!(job = %id, "ended; removing its slot and publication");
                self.tear_down(id, running.row.into());
                Ok(())
            }
            (JobEnd::Failed(reason), AfterEnd::ByOutcome | AfterEnd::HandOver(_)) => {
                // A job that waits for a person must not retain WAL, and must not make updates of its table fail.
                self.tear_down(id.clone(), running.row.into());
                self.report_failure(&id, reason);
                self.watcher.note_failure(&id);
                self.write_reports().await
            }
        }
    }

    async fn torn_down(&mut self, id: JobId, removal: Removal) -> Result<(), DatabaseError> {
        let Some(TearingDown { leftovers, .. }) = self.tearing_down.remove(&id) else {
            return Ok(());
        };
        if removal == Removal::Unknown {
            tracing::error!(
                job = %id,
                "slot and publication may be left behind; the next start of a daemon tries again to remove them"
            );
        }
        let mut done = self.write_reports().await;
        // The quarantined rows belong to the job that has ended. If another daemon has handled its end, they may be
        // those of the job that it started afterwards.
        let first = removal == Removal::Removed || !leftovers.elsewhere;
        if done.is_ok() && self.is_over(&id, &leftovers.rows, first) {
            done = self.store.release(&id, None).await;
        }
        // Last: no daemon should start the job before its failure can be read. And always, or the lock would stay.
        let unlocked = lock::unlock(&self.store, JobsLock::Job(&id)).await;
        done.and(unlocked)
    }

    /// Whether the job that had these rows does not exist any more. `first`: no other daemon has handled its end
    /// before.
    fn is_over(&self, id: &JobId, rows: &[JobRow], first: bool) -> bool {
        match self.watcher.row(id) {
            None => true,
            Some(now) if now.canceled => true,
            Some(now) => {
                let replaced = |row: &JobRow| !row.definition.continues(&now.definition);
                first && rows.iter().any(replaced)
            }
        }
    }

    /// Takes the next step of the search for slots of jobs that were deleted while no daemon ran. One daemon at a time
    /// searches.
    pub(super) async fn search_orphans(&mut self, rows: Vec<JobRow>) -> Result<(), DatabaseError> {
        // The state changes only behind each `await`: this future may be dropped at any of them.
        match &mut self.orphan_search {
            OrphanSearch::Due => self.begin_orphan_search(&rows).await,
            OrphanSearch::Listed(candidates) => {
                let rows = self.store.all_rows().await?;
                let candidates = std::mem::take(candidates);
                self.remove_orphans(candidates, &rows);
                Ok(())
            }
            OrphanSearch::Removed => {
                lock::unlock(&self.store, JobsLock::OrphanSearch).await?;
                self.orphan_search = OrphanSearch::Done;
                Ok(())
            }
            OrphanSearch::Listing | OrphanSearch::Removing | OrphanSearch::Done => Ok(()),
        }
    }

    async fn begin_orphan_search(&mut self, rows: &[JobRow]) -> Result<(), DatabaseError> {
        if !lock::try_lock(&self.store, JobsLock::OrphanSearch).await? {
            return Ok(());
        }
        if let Err(error) = self.store.release_rows_of_deleted_jobs().await {
            if error.is_transient() {
                lock::unlock(&self.store, JobsLock::OrphanSearch).await?;
                return Err(error);
            }
            // Jobs whose rows have to be quarantined fail with the same reason.
            tracing::warn!("{error}");
        }
        let identity = self.store.table().identity();
        let (database, allowed) = (&self.options.database, &self.options.allowed_hosts);
        let databases = orphans::databases(database, rows, allowed);
        self.tasks.spawn(
            tracing::Span::none(),
            async move {
                TaskOutcome::OrphansListed(orphans::candidates(databases, identity).await)
            },
            || TaskOutcome::OrphansRemoved,
        );
        self.orphan_search = OrphanSearch::Listing;
        Ok(())
    }

    /// Removes the candidates that no row accounts for.
    fn remove_orphans(&mut self, mut candidates: Vec<Candidate>, rows: &[JobRow]) {
        let identity = self.store.table().identity();
        let own: BTreeSet<SlotName> = rows
            .iter()
            .map(|row| names::own_slot(identity, row))
            .collect();
        // With a slot per job, this daemon's shared slots serve no job any more. Those of other labels are not ours.
        let shared: BTreeSet<SlotName> = match self.options.slots {
            SlotAllocation::PerDatabase => BTreeSet::new(),
            SlotAllocation::PerJob => rows.iter().map(|row| self.shared_slot(row)).collect(),
        };
        candidates.retain(|candidate| {
            let name = &candidate.name;
            if names::is_shared(identity, name) {
                shared.contains(name)
            } else {
                !own.contains(name)
            }
        });
        self.tasks.spawn(
            tracing::Span::none(),
            async move {
                for orphan in &candidates {
                    orphans::remove(orphan).await;
                }
                TaskOutcome::OrphansRemoved
            },
            || TaskOutcome::OrphansRemoved,
        );
        self.orphan_search = OrphanSearch::Removing;
    }

    /// Takes in a report of a job, unless another daemon owns the job's row by now.
    pub(super) fn accept(&mut self, message: ReportMessage) {
        let running = self.running.get(&message.job);
        if running.is_some_and(|running| running.after_end != AfterEnd::Forget) {
            self.unwritten.push_back(message);
        }
    }

    /// Logs the failure of a job, and queues it for the jobs table.
    pub(super) fn report_failure(&mut self, id: &JobId, reason: String) {
        tracing::error!(job = %id, "failed: {reason}");
        self.unwritten.push_back(ReportMessage {
            job: id.clone(),
            report: Report::Failed(reason),
            answer: None,
        });
    }

    /// Writes the reports in their order. On an error the remaining ones stay for the next call.
    pub(super) async fn write_reports(&mut self) -> Result<(), DatabaseError> {
        while let Some(message) = self.unwritten.front() {
            let answer = reporter::deliver(&self.store, &message.job, &message.report).await?;
            let message = self.unwritten.pop_front();
            if let Some(waiting) = message.and_then(|message| message.answer) {
                // The job may have ended meanwhile.
                let _ = waiting.send(answer);
            }
        }
        Ok(())
    }
}
