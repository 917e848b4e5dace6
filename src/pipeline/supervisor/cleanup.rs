//! What follows when a job ends or has to.

use std::collections::BTreeSet;
use std::time::Duration;

use tracing::Instrument;

use crate::jobs::lock::Lock;
use crate::jobs::reporter::{Message, Report};
use crate::jobs::{JobId, JobRow, lock, reporter};
use crate::pipeline::job::state::JobEnd;
use crate::pipeline::slot::names;
use crate::pipeline::supervisor::orphans::Candidate;
use crate::pipeline::supervisor::{
    Leftovers, Slots, Supervisor, Sweep, TearingDown, Then, orphans, teardown,
};
use crate::postgres::DatabaseError;
use crate::replication::SlotName;

/// How long jobs have to finish what is under way.
pub(super) const GRACE: Duration = Duration::from_millis(8500);

/// A task of the supervisor that has come to its end.
pub(super) enum Ending {
    Job(JobId, JobEnd),
    /// Whether anything was left of the job.
    TornDown(JobId, bool),
    /// Slots that may belong to no job.
    Found(Vec<Candidate>),
    Swept,
}

impl Supervisor {
    /// A job ends that has this row, wherever it runs, and nothing of it stays behind.
    pub(super) fn end(&mut self, row: JobRow) {
        match self.running.get_mut(&row.id) {
            Some(running) => running.end(Then::TearDown),
            None => {
                let leftovers = self.leftovers.entry(row.id.clone()).or_default();
                leftovers.rows.push(row);
            }
        }
    }

    /// Removes what is left of a job under these rows. Its lock is ours until that is done.
    pub(super) fn tear_down(&mut self, id: JobId, leftovers: Leftovers) {
        let identity = self.store.table().identity();
        let label = self.options.label.clone();
        let turns = self.teardown_turns.clone();
        let allowed = self.options.allowed_hosts.clone();
        let done = id.clone();
        let span = tracing::info_span!("job", id = %id);
        let ended = leftovers.rows.clone();
        let work = async move {
            let mut found = false;
            for row in ended {
                let names = teardown::Names {
                    own: names::own_slot(identity, &row),
                    shared: names::shared_slot(identity, label.as_deref(), &row.definition),
                };
                if teardown::run(&row, &names, &allowed, &turns).await {
                    tracing::info!("slot and publication are gone");
                    found = true;
                }
            }
            Ending::TornDown(done, found)
        };
        let task = self.tasks.spawn(work.instrument(span));
        self.tearing_down
            .insert(id, TearingDown { leftovers, task });
    }

    async fn torn_down(&mut self, id: JobId, found: bool) -> Result<(), DatabaseError> {
        let Some(TearingDown { leftovers, .. }) = self.tearing_down.remove(&id) else {
            return Ok(());
        };
        let mut done = self.write_reports().await;
        // What was put aside belongs to the job that has ended. Where another daemon has seen to its end, rows that are
        // aside may be those of the job that it started then.
        let first = found || !leftovers.elsewhere;
        if done.is_ok() && self.is_over(&id, &leftovers.rows, first) {
            done = self.store.take_back(&id, None).await;
        }
        // In the end: nobody should start it before its failure can be read.
        done.and(lock::unlock(&self.store, Lock::Job(&id)).await)
    }

    /// Whether the job that had these rows is no more.
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

    pub(super) async fn ended(&mut self, ending: Ending) -> Result<(), DatabaseError> {
        match ending {
            Ending::Job(id, ended) => self.job_ended(id, ended).await,
            Ending::TornDown(id, found) => self.torn_down(id, found).await,
            Ending::Found(candidates) => {
                let identity = self.store.table().identity();
                let rows = self.store.all_rows().await?;
                let owned: BTreeSet<SlotName> = rows
                    .iter()
                    .map(|row| names::own_slot(identity, row))
                    .collect();
                // Shared slots of ours are of no use where each job has its own; those of other labels are not ours.
                let shared: BTreeSet<SlotName> = match self.options.slots {
                    Slots::Database => BTreeSet::new(),
                    Slots::Job => rows.iter().map(|row| self.shared_slot(row)).collect(),
                };
                let is_orphan = move |name: &SlotName| match names::is_shared(identity, name) {
                    true => shared.contains(name),
                    false => !owned.contains(name),
                };
                self.tasks.spawn(async move {
                    for candidate in candidates {
                        if is_orphan(&candidate.name) {
                            orphans::remove(&candidate).await;
                        }
                    }
                    Ending::Swept
                });
                Ok(())
            }
            Ending::Swept => {
                self.sweep = Sweep::Done;
                lock::unlock(&self.store, Lock::Sweep).await
            }
        }
    }

    async fn job_ended(&mut self, id: JobId, ended: JobEnd) -> Result<(), DatabaseError> {
        let Some(running) = self.running.remove(&id) else {
            return Ok(());
        };
        match (ended, running.then) {
            (_, Then::Forget) => Ok(()),
            (JobEnd::Stopped, _) | (_, Then::Release) | (JobEnd::Canceled, Then::HandOver(_)) => {
                lock::unlock(&self.store, Lock::Job(&id)).await
            }
            (JobEnd::Canceled, _) | (_, Then::TearDown) => {
                tracing::info!(job = %id, "ended; cleaning up behind it");
                self.tear_down(id, Leftovers::of(running.row));
                Ok(())
            }
            (JobEnd::Failed(reason), Then::Nothing | Then::HandOver(_)) => {
                // While it waits for a person it must neither hold back WAL nor break the user's updates.
                self.tear_down(id.clone(), Leftovers::of(running.row));
                tracing::error!(job = %id, "failed: {reason}");
                let report = Report::Failed(reason);
                self.unwritten.push((id.clone(), report, None));
                self.watcher.note_failure(&id);
                self.write_reports().await
            }
        }
    }

    /// Looks once for what is left of jobs whose rows were deleted while no daemon ran; one daemon at a time.
    pub(super) async fn sweep(&mut self, rows: Vec<JobRow>) -> Result<(), DatabaseError> {
        if self.sweep != Sweep::Due || !lock::try_lock(&self.store, Lock::Sweep).await? {
            return Ok(());
        }
        match self.store.take_back_of_deleted_jobs().await {
            // Jobs that have rows to put aside will say so.
            Err(error) if !error.is_transient() => tracing::warn!("{error}"),
            done => done?,
        }
        self.sweep = Sweep::UnderWay;
        let identity = self.store.table().identity();
        let database = self.options.database.clone();
        let allowed = self.options.allowed_hosts.clone();
        self.tasks.spawn(async move {
            Ending::Found(orphans::candidates(database, identity, rows, &allowed).await)
        });
        Ok(())
    }

    /// Notes what a job has to say, unless its row is another daemon's by now.
    pub(super) fn hear(&mut self, message: Message) {
        let running = self.running.get(&message.0);
        if running.is_some_and(|running| running.then != Then::Forget) {
            self.unwritten.push(message);
        }
    }

    pub(super) async fn write_reports(&mut self) -> Result<(), DatabaseError> {
        while let Some((id, report, _)) = self.unwritten.first() {
            let answer = reporter::deliver(&self.store, id, report).await?;
            if let (_, _, Some(waiting)) = self.unwritten.remove(0) {
                let _ = waiting.send(answer);
            }
        }
        Ok(())
    }
}
