//! Which jobs this daemon starts: those that nobody runs, up to its share. And which it hands over: those beyond its share.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::jobs::lock::Lock;
use crate::jobs::presence::{Peer, View};
use crate::jobs::reporter::Reporter;
use crate::jobs::{JobId, JobRow, lock, presence};
use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::capture::own_slot::OwnSlot;
use crate::pipeline::capture::shared_slot::SharedSlot;
use crate::pipeline::capture::subscription::Subscription;
use crate::pipeline::job::state::{Job, JobEnd};
use crate::pipeline::slot::names;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::supervisor::cleanup::{Ending, GRACE};
use crate::pipeline::supervisor::{Running, Slots, Supervisor, Then, fleet};
use crate::postgres::DatabaseError;
use crate::replication::SlotName;

/// A job that nobody has taken for so long is taken by whoever can, whatever its share.
const UNCLAIMED: Duration = Duration::from_secs(3);
/// After jobs had to be taken beyond the share, none is handed over for so long: others do not take what they could.
const NO_TAKERS: Duration = Duration::from_secs(60);
/// A job is handed over when it has run for so long: it is past its preparations then, and a new daemon that comes and goes
/// again moves nothing.
const SETTLED: Duration = Duration::from_secs(3);
/// After the jobs database was away, everybody first comes back to the jobs that it ran before.
const COMING_BACK: Duration = Duration::from_secs(2);

/// What has to be remembered from one look to the next.
pub(super) struct Claims {
    /// Since when jobs have been seen to be run by nobody.
    free: BTreeMap<JobId, Instant>,
    /// Jobs that another daemon was seen to run.
    elsewhere: BTreeMap<JobId, presence::Pid>,
    /// Before this moment no further job is taken.
    not_before: Instant,
    /// Before this moment no job is handed over.
    keep_until: Instant,
    /// Daemons that could not be watched or ended, and were complained about.
    complained: Vec<presence::Pid>,
}

impl Claims {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Claims {
            free: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            not_before: now,
            keep_until: now,
            complained: Vec::new(),
        }
    }

    /// The jobs database was away.
    pub(super) fn after_an_outage(&mut self) {
        self.not_before = Instant::now() + COMING_BACK;
        self.free.clear();
    }
}

impl Supervisor {
    /// Ends daemons that have fallen silent, takes jobs, and hands jobs over.
    pub(super) async fn share_out(&mut self) -> Result<(), DatabaseError> {
        let wanted: Vec<JobRow> = self.watcher.wanted().cloned().collect();
        let mut ids: Vec<JobId> = wanted.iter().map(|row| row.id.clone()).collect();
        let count = ids.len();
        ids.extend(self.leftovers.keys().cloned());
        let mut view = presence::look(&self.store, &ids).await?;
        self.end_silent(&view).await?;
        self.clear_leftovers(&view).await?;
        view.holders.retain(|id, _| ids[..count].contains(id));
        if self.is_in_the_way(&view) {
            return Ok(());
        }
        let share = match self.options.slots {
            Slots::Job => fleet::share(&view, self.session.pid, count),
            // Jobs of one database stay together, so their number says nothing.
            Slots::Database => usize::MAX,
        };
        self.claim(wanted, &view, share).await?;
        self.hand_over(share);
        self.release_databases().await
    }

    /// Whether daemons with the other kind of slots run these jobs: each kind would make its own slots for the same jobs, so
    /// those who came later stand by.
    fn is_in_the_way(&mut self, view: &View) -> bool {
        let own = self.session.pid;
        let other = fleet::other_kind_before_us(view, own, !self.running.is_empty());
        if let Some(pid) = other
            && !self.claims.complained.contains(&pid)
        {
            tracing::warn!(
                "another daemon (process {pid} of the jobs database's server) runs these jobs with another value of --slots; \
                 standing by until it has ended"
            );
            self.claims.complained.push(pid);
        }
        other.is_some()
    }

    /// Whether jobs that share a slot with this one may run here. Takes the slot's lock where it is free.
    async fn may_run(&mut self, row: &JobRow) -> Result<bool, DatabaseError> {
        if self.options.slots == Slots::Job {
            return Ok(true);
        }
        let slot = self.shared_slot(row);
        if self.databases.contains(&slot) {
            return Ok(true);
        }
        let taken = lock::try_lock(&self.store, Lock::Shared(&slot)).await?;
        if taken {
            self.databases.insert(slot);
        }
        Ok(taken)
    }

    /// Gives back the locks of shared slots that no job here needs any more.
    pub(super) async fn release_databases(&mut self) -> Result<(), DatabaseError> {
        let running = self.running.values().map(|running| &running.row);
        let ending = self.tearing_down.values();
        let ending = ending.flat_map(|tearing_down| &tearing_down.leftovers.rows);
        let needed: BTreeSet<SlotName> = running
            .chain(ending)
            .map(|row| self.shared_slot(row))
            .collect();
        while let Some(slot) = self.databases.difference(&needed).next().cloned() {
            lock::unlock(&self.store, Lock::Shared(&slot)).await?;
            self.databases.remove(&slot);
        }
        Ok(())
    }

    async fn end_silent(&mut self, view: &View) -> Result<(), DatabaseError> {
        let own = self.session.pid;
        self.claims
            .complained
            .retain(|pid| view.peers.iter().any(|peer| peer.pid == *pid));
        for peer in view.peers.iter().filter(|peer| peer.pid != own) {
            if peer.signs.is_none() {
                self.complain(
                    peer,
                    "it cannot be seen whether it is alive, since it logs in as another role; let all daemons of a \
                     jobs table log in to it as the same role, or GRANT pg_read_all_stats, pg_signal_backend to that of this one",
                );
            }
        }
        for peer in self.fleet.observe(view, own) {
            let Some(signs) = &peer.signs else { continue };
            match presence::end(&self.store, peer.pid, &signs.heard_at).await {
                Ok(true) => tracing::warn!(
                    "another daemon (process {} of the jobs database's server) has been silent for {:.1} s: its session was \
                     ended, and its jobs are taken over",
                    peer.pid,
                    signs.silent_for.as_secs_f64()
                ),
                Ok(false) => {}
                Err(error) if error.code().is_some_and(|code| code.code() == "42501") => {
                    self.complain(
                        &peer,
                        "it has fallen silent, but this daemon's role may not end its session; let all daemons of a jobs \
                         table log in to it as the same role, or GRANT pg_signal_backend to that of this one",
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn complain(&mut self, peer: &Peer, what: &str) {
        if !self.claims.complained.contains(&peer.pid) {
            tracing::warn!(
                "another daemon (process {} of the jobs database's server): {what}",
                peer.pid
            );
            self.claims.complained.push(peer.pid);
        }
    }

    /// Cleans up behind jobs that ended elsewhere, once whoever ran them has let go of them.
    async fn clear_leftovers(&mut self, view: &View) -> Result<(), DatabaseError> {
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
            // A job that was taken back has its slot again.
            if let Some(now) = self.watcher.wanted().find(|row| row.id == *id) {
                let name = names::own_slot(identity, now);
                leftovers
                    .rows
                    .retain(|row| names::own_slot(identity, row) != name);
            }
            free.push(id.clone());
        }
        for id in free {
            let nothing = self.leftovers[&id].rows.is_empty();
            if !nothing && !lock::try_lock(&self.store, Lock::Job(&id)).await? {
                continue;
            }
            let leftovers = self.leftovers.remove(&id).unwrap_or_default();
            if !nothing {
                self.tear_down(id, leftovers);
            }
        }
        Ok(())
    }

    async fn claim(
        &mut self,
        wanted: Vec<JobRow>,
        view: &View,
        share: usize,
    ) -> Result<(), DatabaseError> {
        let now = Instant::now();
        for row in wanted {
            let id = &row.id;
            if self.running.contains_key(id) || self.tearing_down.contains_key(id) {
                self.claims.elsewhere.remove(id);
                self.claims.free.remove(id);
                continue;
            }
            if let Some(holder) = view.holders.get(id) {
                self.claims.free.remove(id);
                if self.claims.elsewhere.insert(id.clone(), *holder).is_none() {
                    tracing::info!(job = %id, "another daemon runs this job; standing by");
                }
                continue;
            }
            let since = *self.claims.free.entry(id.clone()).or_insert(now);
            if self.leftovers.contains_key(id) || now < self.claims.not_before {
                continue;
            }
            let forsaken = now - since > UNCLAIMED;
            if self.load() >= share && !forsaken {
                continue;
            }
            if self.may_run(&row).await? && lock::try_lock(&self.store, Lock::Job(id)).await? {
                if self.load() >= share {
                    self.claims.keep_until = now + NO_TAKERS;
                }
                if self.claims.elsewhere.remove(id).is_some() {
                    tracing::info!(job = %id, "no other daemon runs this job any more; taking it over");
                }
                self.claims.free.remove(id);
                self.start(row);
            }
        }
        Ok(())
    }

    /// The number of jobs that run here and are meant to stay.
    fn load(&self) -> usize {
        let stays = |running: &&Running| running.then == Then::Nothing;
        self.running.values().filter(stays).count()
    }

    fn hand_over(&mut self, share: usize) {
        let now = Instant::now();
        for running in self.running.values() {
            if matches!(running.then, Then::HandOver(deadline) if deadline < now) {
                running.cancel.cancel();
            }
        }
        if now < self.claims.keep_until {
            return;
        }
        let surplus = self.load().saturating_sub(share);
        // Those that have done least here so far.
        let mut youngest: Vec<(&JobId, &mut Running)> = self
            .running
            .iter_mut()
            .filter(|(_, running)| running.then == Then::Nothing && now - running.since > SETTLED)
            .collect();
        youngest.sort_by_key(|(_, running)| std::cmp::Reverse(running.since));
        for (id, running) in youngest.into_iter().take(surplus) {
            tracing::info!(job = %id, "handing the job over: another daemon has less to do");
            running.then = Then::HandOver(now + GRACE);
            running.stop.cancel();
        }
    }

    /// How the job gets its changes.
    fn subscription(&self, row: &JobRow) -> Subscription {
        let identity = self.store.table().identity();
        let names = JobNames {
            own: names::own_slot(identity, row),
            shared: self.shared_slot(row),
        };
        let limit = self.options.max_retained_wal;
        let reporter = Reporter::new(row.id.clone(), self.sender.clone());
        match self.feeds.clone() {
            None => Subscription::Own(OwnSlot {
                names,
                limit,
                reporter,
            }),
            Some(registry) => Subscription::Shared(SharedSlot {
                names,
                registry,
                limit,
                reporter,
            }),
        }
    }

    /// Starts a job whose lock is ours.
    fn start(&mut self, row: JobRow) {
        let id = row.id.clone();
        let (stop, cancel) = (self.stop.child_token(), CancellationToken::new());
        let job = Job {
            row: row.clone(),
            subscription: self.subscription(&row),
            engine: self.engine.clone(),
            model: None,
            reporter: Reporter::new(id.clone(), self.sender.clone()),
            allowed_hosts: self.options.allowed_hosts.clone(),
            partitions: Partitions::default(),
            stop: stop.clone(),
            cancel: cancel.clone(),
        };
        let span = tracing::info_span!("job", id = %id);
        span.in_scope(|| {
            tracing::info!(
                "starting {} with {}",
                row.definition,
                row.definition.embedding_model.as_deref().unwrap_or("?")
            )
        });
        let ended_id = id.clone();
        let work = async move {
            let ended = AssertUnwindSafe(job.run()).catch_unwind().await;
            let bug = |_| {
                JobEnd::Failed(
                    "a bug in lantern-cli stopped the job; please report it with the log".into(),
                )
            };
            Ending::Job(ended_id, ended.unwrap_or_else(bug))
        };
        self.tasks.spawn(work.instrument(span));
        let running = Running {
            row,
            stop,
            cancel,
            since: Instant::now(),
            then: Then::Nothing,
        };
        self.running.insert(id, running);
    }
}
