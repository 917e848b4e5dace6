//! Which jobs this daemon starts: those that no daemon runs, up to its share. And which jobs it hands over: those
//! beyond its share.
//!
//! ```text
//! presence::look ─▶ terminate daemons that do not respond
//!                   remove what ended jobs left behind
//!                   claim jobs that no daemon runs
//!                   hand over surplus jobs
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use crate::jobs::definition::{JobId, JobRow};
use crate::jobs::lock::JobsLock;
use crate::jobs::presence::{FleetView, Peer};
use crate::jobs::reporter::Reporter;
use crate::jobs::{lock, presence};
use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::capture::own_slot::OwnSlot;
use crate::pipeline::capture::shared_slot::SharedSlot;
use crate::pipeline::capture::subscription::Subscription;
use crate::pipeline::job::interruption::Interruption;
use crate::pipeline::job::state::{Job, JobEnd, TableHistory};
use crate::pipeline::slot::names::{self, JobNames};
use crate::pipeline::supervisor::fleet;
use crate::pipeline::supervisor::observed::ObservedJob;
use crate::pipeline::supervisor::options::SlotAllocation;
use crate::pipeline::supervisor::shutdown::STOP_TIMEOUT;
use crate::pipeline::supervisor::state::{AfterEnd, Running, Supervisor};
use crate::pipeline::supervisor::tasks::TaskOutcome;
use crate::postgres::DatabaseError;
use crate::reminder::Reminder;
use crate::replication::SlotName;
use crate::status::JobCounters;
use crate::status::lag::StreamLag;

/// A job that no daemon has claimed for this long is claimed by any daemon, whatever its share.
const UNCLAIMED_TIMEOUT: Duration = Duration::from_secs(3);
/// After a daemon had to claim jobs beyond its share, it hands none over for this long: the others do not claim theirs.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(60);
/// A job is handed over only after it has run for this long. By then it has finished its preparations, and a daemon
/// that starts and soon stops again has moved nothing.
const MIN_RUN_TIME: Duration = Duration::from_secs(3);

impl Supervisor {
    /// Claims and hands over jobs, so that each daemon runs its share.
    pub(super) async fn balance(&mut self) -> Result<(), DatabaseError> {
        let mut wanted: Vec<JobRow> = self.watcher.wanted().cloned().collect();
        wanted.sort_by(JobRow::in_order_of_start);
        let mut ids: Vec<JobId> = wanted.iter().map(|row| row.id.clone()).collect();
        let count = ids.len();
        ids.extend(self.leftovers.keys().cloned());
        let shared_slots = match self.options.slots {
            SlotAllocation::PerJob => BTreeSet::new(),
            SlotAllocation::PerDatabase => wanted
                .iter()
                .map(|row| self.shared_slot(row).to_string())
                .collect(),
        };
        let mut view = presence::look(&self.store, &ids, shared_slots).await?;
        self.terminate_unresponsive(&view).await?;
        self.warn_of_strangers(&view);
        self.claim_leftovers(&view).await?;
        view.holders.retain(|id, _| ids[..count].contains(id));
        if self.stands_by(&view) {
            return Ok(());
        }
        let share = match self.options.slots {
            SlotAllocation::PerJob => fleet::share(&view, self.session.pid, count),
            // The jobs of one database stay together, so the number of jobs says nothing about the work.
            SlotAllocation::PerDatabase => usize::MAX,
        };
        self.claim(wanted, &view, share).await?;
        self.hand_over(share);
        self.release_shared_slots().await
    }

    /// Whether daemons with another value of `--slots` run these jobs. Each kind would create its own slots for the
    /// same jobs, so the daemons that came later stand by.
    fn stands_by(&mut self, view: &FleetView) -> bool {
        let own = self.session.pid;
        let other = fleet::conflicting_peer(view, own, !self.running.is_empty());
        if let Some(pid) = other
            && !self.claims.warned.contains(&pid)
        {
            tracing::warn!(
                "another daemon (process {pid} of the jobs database's server) runs these jobs with another value of \
                 --slots; standing by until it has ended"
            );
            self.claims.warned.push(pid);
        }
        other.is_some()
    }

    /// Takes the lock of the slot that this job shares with others, if it is free. Returns whether this daemon holds
    /// it.
    async fn claim_shared_slot(&mut self, row: &JobRow) -> Result<bool, DatabaseError> {
        if !self.shares_slot(row) {
            return Ok(true);
        }
        let slot = self.shared_slot(row);
        if self.shared_slots.contains(&slot) {
            return Ok(true);
        }
        let taken = lock::try_lock(&self.store, JobsLock::SharedSlot(slot.as_str())).await?;
        if taken {
            self.shared_slots.insert(slot);
        }
        Ok(taken)
    }

    /// Releases the locks of shared slots that no job here needs any more.
    pub(super) async fn release_shared_slots(&mut self) -> Result<(), DatabaseError> {
        let running = self.running.values().map(|running| &running.row);
        let ending = self.tearing_down.values();
        let ending = ending.flat_map(|tearing_down| &tearing_down.leftovers.rows);
        let needed: BTreeSet<SlotName> = running
            .chain(ending)
            .filter(|row| self.shares_slot(row))
            .map(|row| self.shared_slot(row))
            .collect();
        while let Some(slot) = self.shared_slots.difference(&needed).next().cloned() {
            lock::unlock(&self.store, JobsLock::SharedSlot(slot.as_str())).await?;
            self.shared_slots.remove(&slot);
        }
        Ok(())
    }

    /// Terminates the sessions of daemons that do not respond, so that their locks become free.
    async fn terminate_unresponsive(&mut self, view: &FleetView) -> Result<(), DatabaseError> {
        let own = self.session.pid;
        self.claims
            .warned
            .retain(|pid| view.peers.iter().any(|peer| peer.pid == *pid));
        for peer in view.peers.iter().filter(|peer| peer.pid != own) {
            if peer.activity.is_none() {
                self.warn_once(
                    peer,
                    "its activity is not visible, because it logs in as another role; let all daemons of a jobs \
                     table log in to it as the same role, or GRANT pg_read_all_stats, pg_signal_backend to this \
                     daemon's role",
                );
            }
        }
        for peer in self.fleet.observe(view, own) {
            let Some(activity) = &peer.activity else {
                continue;
            };
            match presence::terminate(&self.store, peer.pid, &activity.last_change).await {
                Ok(true) => tracing::warn!(
                    "another daemon (process {} of the jobs database's server) has not responded for {:.1} s: \
                     its session was ended, and its jobs are taken over",
                    peer.pid,
                    activity.since.as_secs_f64()
                ),
                Ok(false) => {}
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    self.warn_once(
                        &peer,
                        "it does not respond, but this daemon's role may not terminate its session; let all \
                         daemons of a jobs table log in to it as the same role, or GRANT pg_signal_backend to this \
                         daemon's role",
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn warn_once(&mut self, peer: &Peer, what: &str) {
        if !self.claims.warned.contains(&peer.pid) {
            tracing::warn!(
                "another daemon (process {} of the jobs database's server): {what}",
                peer.pid
            );
            self.claims.warned.push(peer.pid);
        }
    }

    /// Removes what is left of jobs that ended elsewhere, once the daemons that ran them have released their locks.
    async fn claim_leftovers(&mut self, view: &FleetView) -> Result<(), DatabaseError> {
        let identity = self.store.table().identity();
        let mut free = Vec::new();
        for (id, leftovers) in &mut self.leftovers {
            if self.running.contains_key(id) || self.tearing_down.contains_key(id) {
                continue;
            }
            if view.holders.contains_key(id) {
                leftovers.elsewhere = true;
                continue;
            }
            // A job that is wanted again under the same definition uses the same slot again.
            if let Some(now) = self.watcher.wanted().find(|row| row.id == *id) {
                let name = names::own_slot(identity, now);
                leftovers.rows.retain(|row| {
                    names::own_slot(identity, row) != name
                        || !row.definition.is_beside(&now.definition)
                });
            }
            free.push(id.clone());
        }
        for id in free {
            let nothing = self.leftovers[&id].rows.is_empty();
            if !nothing && !lock::try_lock(&self.store, JobsLock::Job(&id)).await? {
                continue;
            }
            let leftovers = self.leftovers.remove(&id).unwrap_or_default();
            if !nothing {
                self.tear_down(id, leftovers);
            }
        }
        Ok(())
    }

    /// Starts wanted jobs that no daemon runs.
    async fn claim(
        &mut self,
        wanted: Vec<JobRow>,
        view: &FleetView,
        share: usize,
    ) -> Result<(), DatabaseError> {
        let now = Instant::now();
        let mut waiting = BTreeSet::new();
        for row in wanted {
            let id = &row.id;
            let Some(since) = self.unclaimed_since(id, view, now) else {
                continue;
            };
            if self.leftovers.contains_key(id) || now < self.claims.claim_after {
                continue;
            }
            if self.running.len() >= self.options.max_jobs {
                waiting.insert(id.clone());
                continue;
            }
            let beyond_share = self.load() >= share;
            if beyond_share && now - since <= UNCLAIMED_TIMEOUT {
                continue;
            }
            let slot_is_ours = self.claim_shared_slot(&row).await?;
            if !slot_is_ours || !lock::try_lock(&self.store, JobsLock::Job(id)).await? {
                continue;
            }
            if beyond_share {
                self.claims.hand_over_after = now + HAND_OVER_PAUSE;
            }
            if self.claims.elsewhere.remove(id).is_some() {
                tracing::info!(job = %id, "no other daemon runs this job any more; taking it over");
            }
            self.claims.unclaimed.remove(id);
            self.start(row);
        }
        self.tell_of_waiting(waiting).await
    }

    /// Since when no daemon has been seen to run the job; `None` if one runs it.
    fn unclaimed_since(&mut self, id: &JobId, view: &FleetView, now: Instant) -> Option<Instant> {
        let claims = &mut self.claims;
        if self.running.contains_key(id) || self.tearing_down.contains_key(id) {
            claims.elsewhere.remove(id);
            claims.unclaimed.remove(id);
            return None;
        }
        if let Some(holder) = view.holders.get(id) {
            claims.unclaimed.remove(id);
            if claims.elsewhere.insert(id.clone(), *holder).is_none() {
                tracing::info!(job = %id, "another daemon runs this job; standing by");
            }
            return None;
        }
        Some(*claims.unclaimed.entry(id.clone()).or_insert(now))
    }

    /// The number of jobs that run here and are not about to end.
    fn load(&self) -> usize {
        let stays = |running: &&Running| running.after_end == AfterEnd::ByOutcome;
        self.running.values().filter(stays).count()
    }

    /// Stops jobs beyond this daemon's share, so that others claim them.
    fn hand_over(&mut self, share: usize) {
        let now = Instant::now();
        for running in self.running.values() {
            if matches!(running.after_end, AfterEnd::HandOver(deadline) if deadline < now) {
                running.cancel.cancel();
            }
        }
        if now < self.claims.hand_over_after {
            return;
        }
        let surplus = self.load().saturating_sub(share);
        // The youngest first: they have done the least here so far.
        let mut youngest: Vec<(&JobId, &mut Running)> = self
            .running
            .iter_mut()
            .filter(|(_, running)| {
                running.after_end == AfterEnd::ByOutcome && now - running.since > MIN_RUN_TIME
            })
            .collect();
        youngest.sort_by_key(|(_, running)| std::cmp::Reverse(running.since));
        for (id, running) in youngest.into_iter().take(surplus) {
            tracing::info!(job = %id, "handing the job over: another daemon runs fewer jobs");
            running.after_end = AfterEnd::HandOver(now + STOP_TIMEOUT);
            running.stop.cancel();
        }
    }

    /// How the job receives its changes.
    fn subscription(&self, row: &JobRow, lag: Arc<StreamLag>) -> Subscription {
        let identity = self.store.table().identity();
        let names = JobNames::new(identity, self.options.label.as_deref(), row);
        let limit = self.options.max_retained_wal;
        let reporter = Reporter::new(row.id.clone(), self.sender.clone());
        match self.readers.clone().filter(|_| self.shares_slot(row)) {
            None => Subscription::Own(OwnSlot {
                names,
                limit,
                reporter,
                lag,
            }),
            Some(registry) => Subscription::Shared(SharedSlot {
                names,
                registry,
                limit,
                reporter,
            }),
        }
    }

    /// Starts a job whose lock this daemon holds.
    fn start(&mut self, row: JobRow) {
        let id = row.id.clone();
        let (stop, cancel) = (self.stop.child_token(), CancellationToken::new());
        let lag = match &self.readers {
            Some(registry) if self.shares_slot(&row) => registry.lag(&self.shared_slot(&row)),
            _ => Arc::default(),
        };
        let counters = Arc::new(JobCounters::new(lag.clone()));
        let subscription = self.subscription(&row, lag);
        let lock_key = JobsLock::Job(&id).key(&self.store);
        let slot = subscription.slot().clone();
        let observed = ObservedJob::new(lock_key, slot, counters.clone(), &row.definition);
        let job = Job {
            row: row.clone(),
            subscription,
            counters,
            engine: self.engine.clone(),
            model: None,
            served: self.observation.board.models().clone(),
            offer: None,
            offers_of_replaced: Vec::new(),
            reporter: Reporter::new(id.clone(), self.sender.clone()),
            jobs_table: self.store.table().identity(),
            interruption: Interruption::new(Reporter::new(id.clone(), self.sender.clone())),
            has_run: false,
            seen_elsewhere: None,
            access: self.options.access.clone(),
            powerful_roles: self.options.powerful_roles,
            exposure: Reminder::default(),
            partitions: Partitions::default(),
            databases: self.databases.clone(),
            history: TableHistory::default(),
            fills_new_column: false,
            stop: stop.clone(),
            cancel: cancel.clone(),
        };
        let span = tracing::info_span!("job", job = %id);
        span.in_scope(|| {
            tracing::info!(
                "starting {} with {}",
                row.definition,
                row.definition.embedding_model.as_deref().unwrap_or("?")
            );
        });
        let (ended_id, panicked_id) = (id.clone(), id.clone());
        self.tasks.spawn(
            span,
            async move { TaskOutcome::JobEnded(ended_id, job.run().await) },
            move || TaskOutcome::JobEnded(panicked_id, failed_by_panic()),
        );
        let running = Running {
            row,
            stop,
            cancel,
            since: Instant::now(),
            has_begun: false,
            after_end: AfterEnd::ByOutcome,
            observed,
        };
        self.running.insert(id, running);
    }
}

/// A panic of the job's own task fails the job: the next attempt would most likely panic again. A panic of a task that the
/// job has spawned is a transient error for the job, which then retries by itself.
///
/// The panic's message is in the log only: it may quote a text of the table.
fn failed_by_panic() -> JobEnd {
    JobEnd::Failed(
        "a task of the job panicked: see the daemon's log, and please report this bug in lantern-cli with it".into(),
    )
}
