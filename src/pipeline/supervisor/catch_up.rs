//! `--until-caught-up`: the daemon ends by itself once everything that was committed is embedded.
//!
//! ```text
//! a job that runs here                              has finished its backfill, and its slot has then confirmed the end of
//!                                                   the WAL as of that moment
//! one that runs elsewhere, has failed, is canceled  is not waited for
//! what ended jobs have left behind                  is removed, where the server can be reached
//! ```
//!
//! A job is done for good: what is committed later may be embedded before the daemon ends, or by the next one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::jobs::definition::{JobId, JobRow};
use crate::jobs::{InitProgress, JobStore};
use crate::pipeline::setup::target_database;
use crate::pipeline::slot::committed_end::CommittedEnd;
use crate::pipeline::slot::job_slots::{JobSlot, find_job_slots};
use crate::pipeline::slot::names;
use crate::pipeline::supervisor::state::{CatchUp, OrphanSearch, Supervisor};
use crate::pipeline::supervisor::tasks::TaskOutcome;
use crate::plural::form;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::SlotName;

/// How often a slot is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const MIN_BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Why a daemon has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    /// It was told to stop.
    Stopped {
        /// The jobs that a daemon which ends by itself still waited for.
        unfinished: Vec<JobId>,
    },
    /// Everything that was committed is embedded but for these jobs, which have failed.
    CaughtUp {
        /// In the order of their ids.
        failed: Vec<JobId>,
    },
}

impl Supervisor {
    /// The same daemon, which ends once everything that was committed is embedded.
    pub fn until_caught_up(mut self) -> Self {
        self.catch_up = Some(CatchUp::default());
        self
    }

    /// Why the daemon ends.
    pub(super) fn run_end(&self) -> RunEnd {
        match &self.catch_up {
            Some(catch_up) if catch_up.is_over => RunEnd::CaughtUp {
                failed: self.watcher.failed().map(|row| row.id.clone()).collect(),
            },
            Some(catch_up) => RunEnd::Stopped {
                unfinished: catch_up.unfinished.clone(),
            },
            None => RunEnd::Stopped {
                unfinished: Vec::new(),
            },
        }
    }

    /// The slot of a job is no longer waited for: it has confirmed the end, unless the task has panicked.
    pub(super) fn note_awaited(&mut self, slot: SlotName, confirmed: bool) {
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.waiting.remove(&slot);
            if confirmed {
                catch_up.confirmed.insert(slot);
            }
        }
    }

    /// Stops the daemon if everything is embedded, by the rows that were read just now.
    pub(super) async fn stop_if_caught_up(&mut self) {
        if self.catch_up.is_none() {
            return;
        }
        let elsewhere = |row: &&JobRow| self.claims.elsewhere.contains_key(&row.id);
        let rows = self.watcher.wanted().filter(|row| !elsewhere(row));
        let rows: Vec<JobRow> = rows.cloned().collect();
        let unfinished = rows.iter().filter(|row| !self.is_caught_up(row));
        let unfinished: Vec<JobId> = unfinished.map(|row| row.id.clone()).collect();
        let is_over = unfinished.is_empty() && !self.is_cleaning_up();
        if let Some(catch_up) = &mut self.catch_up {
            catch_up.unfinished = unfinished;
            catch_up.is_over = is_over;
        }
        if !is_over {
            return;
        }
        tracing::info!(
            "caught up: {} {} embedded everything that was committed",
            rows.len(),
            form(rows.len(), "job has", "jobs have")
        );
        for row in &rows {
            tell_of_quarantine(&self.store, &row.id).await;
        }
        self.stop.cancel();
    }

    /// Whether a job that should run in this daemon has embedded everything. Otherwise sees to it that the daemon learns of
    /// that.
    fn is_caught_up(&mut self, row: &JobRow) -> bool {
        let slot = names::own_slot(self.store.table().identity(), row);
        let running = self.running.get(&row.id);
        let has_begun = running.is_some_and(|running| running.has_begun);
        let Some(catch_up) = &mut self.catch_up else {
            return false;
        };
        if catch_up.done.contains(&slot) {
            return true;
        }
        let confirmed = catch_up.confirmed.remove(&slot);
        if !has_begun || row.progress != InitProgress::Finished {
            if let Some(task) = catch_up.waiting.remove(&slot) {
                task.abort();
            }
            return false;
        }
        if confirmed {
            catch_up.done.insert(slot);
            return true;
        }
        if !catch_up.waiting.contains_key(&slot) {
            self.wait_for_confirmation(row, slot);
        }
        false
    }

    fn wait_for_confirmation(&mut self, row: &JobRow, slot: SlotName) {
        // A job that may not connect there fails.
        let database = target_database::from_definition(&row.definition, &self.options.access);
        let (Ok(database), Some(catch_up)) = (database, &mut self.catch_up) else {
            return;
        };
        let (awaited, panicked) = (slot.clone(), slot.clone());
        let task = self.tasks.spawn(
            tracing::info_span!("job", job = %row.id),
            async move {
                until_confirmed(&database.named("catch-up"), &awaited).await;
                TaskOutcome::Awaited(awaited, true)
            },
            move || TaskOutcome::Awaited(panicked, false),
        );
        catch_up.waiting.insert(slot, task);
    }

    /// Whether something is being removed, or will be. A server that cannot be reached holds up nothing.
    fn is_cleaning_up(&self) -> bool {
        let mut teardowns = self.tearing_down.values();
        !self.leftovers.is_empty()
            || teardowns.any(|teardown| !teardown.delayed.load(Ordering::Relaxed))
            || !matches!(self.orphan_search, OrphanSearch::Due | OrphanSearch::Done)
    }
}

/// Waits until the slot of a job has confirmed everything that is committed now, also while the server is away.
async fn until_confirmed(database: &ConnectionString, own: &SlotName) {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    while let Err(error) = confirmed_once(database, own).await {
        tracing::debug!("cannot see how far the job is: {error}");
        backoff.wait().await;
    }
}

async fn confirmed_once(database: &ConnectionString, own: &SlotName) -> Result<(), DatabaseError> {
    let session = Session::open(database).await?;
    let mut end = CommittedEnd::read(&session).await?;
    loop {
        let slots = find_job_slots(&session, own).await?;
        let is_there = |slot: &JobSlot| slot.has_confirmed(end.position());
        if !slots.is_empty() && slots.iter().all(is_there) {
            return Ok(());
        }
        end.leave_out_unflushed(&session).await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Says how many rows of a job are not embedded. A failures table that the role may not use is no concern of this.
async fn tell_of_quarantine(store: &JobStore, id: &JobId) {
    if let Ok(Some(count @ 1..)) = store.count_failures(id).await {
        tracing::warn!(
            job = %id,
            "{count} {} could not be embedded or written; see {}, remove the cause, and run: lantern-cli retry-failed \
             --job {id}",
            form(count, "row", "rows"),
            store.table().failures()
        );
    }
}
