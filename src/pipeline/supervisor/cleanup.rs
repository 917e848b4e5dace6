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
//!
//! A teardown that cannot reach its server is recalled when the row of the job asks for something else by now: it is
//! then repeated with the new connection string, left out because the job runs again with what there is, or *parked*,
//! without a lock, because the job goes on in another database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::jobs::definition::{JobId, JobRow};
use crate::jobs::lock::JobsLock;
use crate::jobs::reporter::{Answer, Report, ReportMessage, Reporter};
use crate::jobs::{InitProgress, lock, reporter};
use crate::pipeline::job::state::JobEnd;
use crate::pipeline::slot::names;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::supervisor::options::SlotAllocation;
use crate::pipeline::supervisor::orphans;
use crate::pipeline::supervisor::orphans::{Candidate, Search};
use crate::pipeline::supervisor::state::{
    AfterEnd, Leftovers, OrphanSearch, Parked, Supervisor, TearingDown,
};
use crate::pipeline::supervisor::tasks::{Removal, TaskOutcome};
use crate::pipeline::supervisor::teardown::{End, Teardown};
use crate::postgres::{DatabaseError, ServerInstance};
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
        let recalled = CancellationToken::new();
        let delayed = Arc::new(AtomicBool::new(false));
        let teardowns: Vec<Teardown> = leftovers
            .rows
            .iter()
            .map(|row| self.teardown(row.clone(), &recalled, &delayed))
            .collect();
        let (ended_id, panicked_id) = (id.clone(), id.clone());
        let work = async move {
            let mut removal = Removal::Nothing;
            for teardown in teardowns {
                match teardown.run().await {
                    End::Nothing => {}
                    End::Removed => {
                        tracing::info!("slot and publication are gone");
                        removal = Removal::Removed;
                    }
                    End::Recalled => {
                        removal = Removal::Recalled;
                        break;
                    }
                }
            }
            TaskOutcome::TornDown(ended_id, removal)
        };
        let task = self
            .tasks
            .spawn(tracing::info_span!("job", job = %id), work, move || {
                TaskOutcome::TornDown(panicked_id, Removal::Unknown)
            });
        let tearing_down = TearingDown {
            leftovers,
            task,
            recalled,
            delayed,
        };
        self.tearing_down.insert(id, tearing_down);
    }

    fn teardown(
        &self,
        row: JobRow,
        recalled: &CancellationToken,
        delayed: &Arc<AtomicBool>,
    ) -> Teardown {
        let identity = self.store.table().identity();
        Teardown {
            names: JobNames::new(identity, self.options.label.as_deref(), &row),
            access: self.options.access.clone(),
            turns: self.teardown_turns.clone(),
            reporter: Reporter::new(row.id.clone(), self.sender.clone()),
            recalled: recalled.clone(),
            delayed: delayed.clone(),
            is_wanted: self.watcher.is_wanted(&row.id),
            drops_new_column: self.comes_back_otherwise(&row),
            row,
        }
    }

    /// Whether the job with this row does not run again as it was: it is canceled or deleted, or has become another one.
    fn comes_back_otherwise(&self, row: &JobRow) -> bool {
        let now = self.watcher.row(&row.id);
        now.is_none_or(|now| {
            let was = &row.definition;
            now.canceled
                || !was.continues(&now.definition)
                || was.replaces != now.definition.replaces
        })
    }

    /// Recalls the teardowns that the rows of the jobs table, as they are now, ask for in another way: with another
    /// password, or not at all because the job is to run again.
    pub(super) fn recall_teardowns(&mut self) {
        for (id, tearing_down) in &self.tearing_down {
            let Some(now) = self.watcher.row(id) else {
                continue;
            };
            let wanted = self.watcher.is_wanted(id);
            let is_outdated = |row: &JobRow| {
                let (old, new) = (&row.definition, &now.definition);
                let delayed = tearing_down.delayed.load(Ordering::Relaxed);
                match old.is_beside(new) {
                    true => old.db_connection != new.db_connection || wanted && old.continues(new),
                    false => wanted && delayed,
                }
            };
            if tearing_down.leftovers.rows.iter().any(is_outdated) {
                tearing_down.recalled.cancel();
            }
        }
        for parked in &self.parked {
            let now = self.watcher.row(&parked.row.id);
            if now.is_some_and(|now| parked.row.definition.is_beside(&now.definition)) {
                parked.recalled.cancel();
            }
        }
        self.parked.retain(|parked| !parked.recalled.is_cancelled());
    }

    /// A teardown was recalled: what it still had to do is left for the next poll, or parked.
    fn recalled(&mut self, id: &JobId, mut leftovers: Leftovers) {
        let now = self.watcher.row(id).cloned();
        for mut row in std::mem::take(&mut leftovers.rows) {
            match &now {
                Some(now) if row.definition.is_beside(&now.definition) => {
                    row.definition
                        .db_connection
                        .clone_from(&now.definition.db_connection);
                    leftovers.rows.push(row);
                }
                Some(_) if self.watcher.is_wanted(id) => self.park(row),
                _ => leftovers.rows.push(row),
            }
        }
        let kept = self.leftovers.entry(id.clone()).or_default();
        kept.elsewhere |= leftovers.elsewhere;
        kept.rows.append(&mut leftovers.rows);
    }

    /// Goes on with a teardown that the job does not wait for.
    fn park(&mut self, row: JobRow) {
        let recalled = CancellationToken::new();
        let teardown = self.teardown(row.clone(), &recalled, &Arc::default());
        self.tasks.spawn(
            tracing::info_span!("job", id = %row.id),
            async move {
                if teardown.run().await == End::Removed {
                    tracing::info!("slot and publication of the job's earlier definition are gone");
                }
                TaskOutcome::ParkedTornDown
            },
            || TaskOutcome::ParkedTornDown,
        );
        self.parked.push(Parked { row, recalled });
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
            TaskOutcome::Awaited(slot, confirmed) => {
                self.note_awaited(slot, confirmed);
                Ok(())
            }
            TaskOutcome::ParkedTornDown => Ok(()),
        }
    }

    async fn job_ended(&mut self, id: JobId, ended: JobEnd) -> Result<(), DatabaseError> {
        let Some(running) = self.running.remove(&id) else {
            return Ok(());
        };
        let running = match running.after_end {
            // Its lock is another daemon's by now.
            AfterEnd::Forget => running,
            _ => self.record_end(&id, running).await?,
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
                self.fail(running.row, reason).await
            }
        }
    }

    /// Ends a job whose lock this daemon holds, and which does not run, until a person has acted. It must not retain
    /// WAL meanwhile, and must not make updates of its table fail.
    pub(super) async fn fail(&mut self, row: JobRow, reason: String) -> Result<(), DatabaseError> {
        let id = row.id.clone();
        self.tear_down(id.clone(), row.into());
        self.report_failure(&id, reason);
        self.watcher.note_failure(&id);
        self.write_reports().await
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
            done = self.release_failures(&id).await;
        }
        let now = self.watcher.row(&id);
        if done.is_ok() && now.is_some_and(|row| row.replaced_by.is_some()) {
            // The session that its successor has ended is no trouble any more.
            done = self.store.interrupted(&id, None).await;
        }
        if removal == Removal::Recalled {
            self.recalled(&id, leftovers);
        }
        // Last: no daemon should start the job before its failure can be read. And always, or the lock would stay.
        let unlocked = lock::unlock(&self.store, JobsLock::Job(&id)).await;
        done.and(unlocked)
    }

    /// Removes the quarantined rows of a job that is over. A failures table that the role may not use holds up nothing.
    async fn release_failures(&self, id: &JobId) -> Result<(), DatabaseError> {
        match self.store.release(id, None).await {
            Ok(()) => Ok(()),
            Err(error) => match error.into_transient() {
                Ok(transient) => Err(transient),
                Err(error) => {
                    tracing::warn!(job = %id, "{error}");
                    Ok(())
                }
            },
        }
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
    pub(super) async fn search_orphans(&mut self, rows: &[JobRow]) -> Result<(), DatabaseError> {
        // The state changes only behind each `await`: this future may be dropped at any of them.
        match &mut self.orphan_search {
            OrphanSearch::Due => self.begin_orphan_search(rows).await,
            OrphanSearch::Listed(candidates) => {
                let rows = self.store.all_rows().await?.rows;
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
        let jobs_server = ServerInstance::of(self.store.session()).await?;
        if !lock::try_lock(&self.store, JobsLock::OrphanSearch).await? {
            return Ok(());
        }
        if let Err(error) = self.store.release_rows_of_deleted_jobs().await {
            match error.into_transient() {
                Ok(transient) => {
                    lock::unlock(&self.store, JobsLock::OrphanSearch).await?;
                    return Err(transient);
                }
                // Jobs whose rows have to be quarantined fail with the same reason.
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let search = Search {
            table: self.store.table().qualified().to_owned(),
            identity: self.store.table().identity(),
            jobs_server,
        };
        let (database, access) = (&self.options.database, &self.options.access);
        let databases = orphans::databases(database, rows, access);
        self.tasks.spawn(
            tracing::Span::none(),
            async move { TaskOutcome::OrphansListed(orphans::candidates(databases, search).await) },
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
        let is_question = matches!(message.report, Report::AskServer);
        let running = self.running.get_mut(&message.job);
        let Some(running) = running.filter(|running| running.after_end != AfterEnd::Forget) else {
            // Teardowns report nothing.
            if is_question {
                self.unwritten.push_back(message);
            }
            return;
        };
        if let Report::AskEarlierWriter = message.report {
            let first = self.watcher.earlier_writer(&message.job).cloned();
            if let Some(waiting) = message.answer {
                let _ = waiting.send(Answer::EarlierWriter(first));
            }
            return;
        }
        running.observed.note(&message.report);
        if matches!(message.report, Report::Started | Report::StartedAgain) {
            running.has_begun = true;
            // From now on the job may have a slot and a publication.
            if running.row.progress == InitProgress::New {
                running.row.progress = InitProgress::Started;
            }
        }
        self.unwritten.push_back(message);
    }

    /// The reason of a failure, and how to have the job tried again.
    pub(super) fn with_retry(&self, id: &JobId, reason: &str) -> String {
        // A reason may end with a statement.
        let reason = reason.trim_end_matches([';', '.']);
        let retry = self.store.table().retry_statement(id);
        format!("{reason}; then have it tried again: {retry}")
    }

    /// Logs the failure of a job, and queues it for the jobs table.
    pub(super) fn report_failure(&mut self, id: &JobId, reason: String) {
        tracing::error!(
            job = %id,
            "failed: {}",
            self.with_retry(id, &reason)
        );
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
