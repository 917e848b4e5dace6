//! Runs every job of the jobs table, each by itself: starts, replaces, cancels, and writes down what they report.
//!
//! One task owns the session to the jobs database. Jobs talk to it through a [`Reporter`]; while that database is away they
//! go on with their work and their reports wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::embedding::Engine;
use crate::jobs::table::JobsTableError;
use crate::jobs::watcher::{Change, Watcher};
use crate::jobs::{JobId, JobRow, JobStore, JobsTable, lock};
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::SlotName;

use super::job::{Ended, Job};
use super::orphans::{self, Candidate};
use super::partitions::Partitions;
use super::reporter::{self, Message, Report, Reporter};
use super::retention::RetentionLimit;
use super::{provision, teardown};

/// How often the jobs table is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// How often a job that another daemon holds is asked for.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// All jobs together have this long to finish when the daemon stops.
const GRACE: Duration = Duration::from_millis(8500);

/// Where the jobs are.
#[derive(Debug, Clone)]
pub struct Options {
    pub database: ConnectionString,
    pub schema: String,
    pub table: String,
    /// Only rows with this label are this daemon's.
    pub label: Option<String>,
    /// The most WAL that each job's slot may hold back.
    pub max_retained_wal: RetentionLimit,
}

/// A job that runs here.
struct Running {
    row: JobRow,
    cancel: CancellationToken,
    /// What to do when it has ended: nothing, or start over with a newer definition.
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It ended by itself.
    Nothing,
    /// Start again; slot and publication stay.
    Restart,
    /// Remove what is left of it.
    TearDown,
    /// Remove what is left of it, then start what its row says now.
    Replace,
}

/// A task of the supervisor that has come to its end.
enum Ending {
    Job(JobId, Ended),
    TornDown(JobId, Then),
    /// Slots that may belong to no job.
    Leftovers(Vec<Candidate>),
}

pub struct Supervisor {
    options: Options,
    engine: Engine,
    stop: CancellationToken,
    store: JobStore,
    watcher: Watcher,
    changes: VecDeque<Change>,
    running: BTreeMap<JobId, Running>,
    /// Cancelled jobs whose leftovers are being removed.
    tearing_down: BTreeSet<JobId>,
    looked_for_orphans: bool,
    /// So many targets are cleaned up at a time: a first look may find hundreds of cancelled jobs.
    teardown_turns: Arc<Semaphore>,
    /// Jobs that should run and are held by another daemon, with the time of the next question.
    waiting: BTreeMap<JobId, Instant>,
    tasks: JoinSet<Ending>,
    messages: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    /// Reports that are not written yet.
    unwritten: Vec<Message>,
}

impl Supervisor {
    /// Connects to the jobs database and checks the jobs table.
    ///
    /// # Errors
    /// When the database is out of reach, or the table is not one that a daemon can work with.
    pub async fn open(
        options: Options,
        engine: Engine,
        stop: CancellationToken,
    ) -> Result<Self, JobsTableError> {
        let store = open_store(&options).await?;
        let (sender, messages) = mpsc::channel(256);
        Ok(Supervisor {
            options,
            engine,
            stop,
            store,
            watcher: Watcher::default(),
            changes: VecDeque::new(),
            running: BTreeMap::new(),
            tearing_down: BTreeSet::new(),
            looked_for_orphans: false,
            teardown_turns: Arc::new(Semaphore::new(4)),
            waiting: BTreeMap::new(),
            tasks: JoinSet::new(),
            messages,
            sender,
            unwritten: Vec::new(),
        })
    }

    /// Runs until told to stop; then lets every job finish what is under way.
    pub async fn run(mut self) {
        tracing::info!(
            "watching {} in {}",
            self.store.table().qualified(),
            self.options.database
        );
        let mut clock = interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        let mut lost = None;
        loop {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                step = self.step(&mut clock) => step,
            };
            match step {
                Ok(()) => lost = None,
                Err(error) => self.reconnect(error, &mut lost).await,
            }
        }
        self.wind_down().await;
    }

    /// Waits for the next thing to do and does it. Dropped in the middle only when the daemon stops.
    async fn step(&mut self, clock: &mut Interval) -> Result<(), DatabaseError> {
        tokio::select! {
            biased;
            Some(message) = self.messages.recv() => {
                self.unwritten.push(message);
                self.write_reports().await
            }
            Some(ending) = self.tasks.join_next() => match ending {
                Ok(ending) => self.ended(ending).await,
                Err(error) => {
                    tracing::error!("a task ended early: {error}");
                    Ok(())
                }
            },
            _ = clock.tick() => self.look().await,
        }
    }

    async fn look(&mut self) -> Result<(), DatabaseError> {
        self.write_reports().await?;
        let rows = self.store.rows().await?;
        if !std::mem::replace(&mut self.looked_for_orphans, true) {
            let (identity, rows) = (self.store.table().identity(), rows.clone());
            self.tasks
                .spawn(async move { Ending::Leftovers(orphans::candidates(identity, rows).await) });
        }
        // Kept until they are dealt with: the connection may break in between.
        self.changes.extend(self.watcher.observe(&rows));
        while let Some(change) = self.changes.front().cloned() {
            match change {
                Change::Start(id) => self.start(id).await?,
                Change::Cancel(id) => self.end(id, Then::TearDown, None).await?,
                Change::Restart(id) => {
                    tracing::info!(job = %id, "the definition has changed; starting again");
                    self.end(id, Then::Restart, None).await?;
                }
                Change::Replace { id, old } => {
                    tracing::info!(job = %id, "the job has become another one; starting over");
                    self.end(id, Then::Replace, Some(*old)).await?;
                }
            }
            self.changes.pop_front();
        }
        let now = Instant::now();
        let due: Vec<JobId> = self
            .waiting
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.start(id).await?;
        }
        Ok(())
    }

    /// Starts a job, unless it runs, is still being cleaned up, or belongs to another daemon for now.
    async fn start(&mut self, id: JobId) -> Result<(), DatabaseError> {
        let Some(row) = self.watcher.row(&id).cloned() else {
            self.waiting.remove(&id);
            return Ok(());
        };
        if row.canceled || self.running.contains_key(&id) {
            self.waiting.remove(&id);
            return Ok(());
        }
        if self.tearing_down.contains(&id) {
            // Its end comes first; then it starts.
            self.waiting.insert(id, Instant::now() + LOOK_EVERY);
            return Ok(());
        }
        if !lock::try_lock(&self.store, &id).await? {
            if self
                .waiting
                .insert(id.clone(), Instant::now() + ASK_AGAIN)
                .is_none()
            {
                tracing::info!(job = %id, "another daemon runs this job; standing by");
            }
            return Ok(());
        }
        self.waiting.remove(&id);
        let cancel = CancellationToken::new();
        let job = Job {
            row: row.clone(),
            name: provision::name(self.store.table().identity(), &row),
            engine: self.engine.clone(),
            reporter: Reporter::new(id.clone(), self.sender.clone()),
            max_retained_wal: self.options.max_retained_wal,
            partitions: Partitions::default(),
            stop: self.stop.clone(),
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
                Ended::Failed(
                    "a bug in lantern-cli stopped the job; please report it with the log".into(),
                )
            };
            Ending::Job(ended_id, ended.unwrap_or_else(bug))
        };
        self.tasks.spawn(work.instrument(span));
        self.running.insert(
            id,
            Running {
                row,
                cancel,
                then: Then::Nothing,
            },
        );
        Ok(())
    }

    /// Ends a job, and does what is to follow once it has stopped. `old` is its row under the definition that ends, where
    /// that is not the one that was read last.
    async fn end(
        &mut self,
        id: JobId,
        then: Then,
        old: Option<JobRow>,
    ) -> Result<(), DatabaseError> {
        let waited = self.waiting.remove(&id).is_some();
        if let Some(running) = self.running.get_mut(&id) {
            running.then = then;
            running.cancel.cancel();
            return Ok(());
        }
        if then == Then::Restart {
            return self.start(id).await;
        }
        // It does not run here: cancelled while no daemon ran, or failed before. Its slot may still be there.
        let Some(row) = old.or_else(|| self.watcher.row(&id).cloned()) else {
            return Ok(());
        };
        if self.tearing_down.contains(&id) {
            if then == Then::Replace {
                // What it was before is being removed already, because it had failed.
                self.waiting.insert(id, Instant::now() + LOOK_EVERY);
            }
            return Ok(());
        }
        if lock::try_lock(&self.store, &id).await? {
            self.tear_down(id, row, then);
        } else if waited && then == Then::Replace {
            // The daemon that runs it replaces it; we go on standing by.
            self.waiting.insert(id, Instant::now() + ASK_AGAIN);
        }
        Ok(())
    }

    fn tear_down(&mut self, id: JobId, row: JobRow, then: Then) {
        let name = provision::name(self.store.table().identity(), &row);
        let span = tracing::info_span!("job", id = %id);
        self.tearing_down.insert(id.clone());
        let turns = self.teardown_turns.clone();
        let work = async move {
            if teardown::run(&row, &name, &turns).await {
                tracing::info!("slot and publication are gone");
            }
            Ending::TornDown(id, then)
        };
        self.tasks.spawn(work.instrument(span));
    }

    async fn ended(&mut self, ending: Ending) -> Result<(), DatabaseError> {
        match ending {
            Ending::Job(id, ended) => {
                let Some(running) = self.running.remove(&id) else {
                    return Ok(());
                };
                match ended {
                    Ended::Stopped => lock::unlock(&self.store, &id).await,
                    Ended::Canceled | Ended::Failed(_) if running.then == Then::Restart => {
                        self.waiting.insert(id.clone(), Instant::now());
                        lock::unlock(&self.store, &id).await
                    }
                    Ended::Canceled => {
                        if running.then == Then::TearDown {
                            tracing::info!(job = %id, "cancelled");
                        }
                        self.tear_down(id, running.row, running.then);
                        Ok(())
                    }
                    Ended::Failed(_) if running.then != Then::Nothing => {
                        self.tear_down(id, running.row, running.then);
                        Ok(())
                    }
                    Ended::Failed(reason) => {
                        // While it waits for a person it must neither hold back WAL nor break the user's updates.
                        self.tear_down(id.clone(), running.row, Then::Nothing);
                        tracing::error!(job = %id, "failed: {reason}");
                        let report = Report::Failed(reason);
                        self.unwritten.push((id.clone(), report, None));
                        self.write_reports().await?;
                        self.watcher.note_failure(&id);
                        Ok(())
                    }
                }
            }
            Ending::Leftovers(candidates) => {
                let identity = self.store.table().identity();
                let rows = self.store.all_rows().await?;
                let owned: BTreeSet<SlotName> = rows
                    .iter()
                    .map(|row| provision::name(identity, row))
                    .collect();
                for candidate in candidates
                    .iter()
                    .filter(|candidate| !owned.contains(&candidate.name))
                {
                    if let Err(error) = orphans::remove(candidate).await {
                        tracing::warn!(
                            "slot and publication {} may be left behind: {error}",
                            candidate.name
                        );
                    }
                }
                Ok(())
            }
            Ending::TornDown(id, then) => {
                self.tearing_down.remove(&id);
                let over = self.watcher.row(&id).is_none_or(|row| row.canceled);
                if over || then == Then::Replace {
                    self.store.take_back(&id, None).await?;
                }
                if then == Then::Replace {
                    self.waiting.insert(id.clone(), Instant::now());
                }
                lock::unlock(&self.store, &id).await
            }
        }
    }

    async fn write_reports(&mut self) -> Result<(), DatabaseError> {
        while let Some((id, report, _)) = self.unwritten.first() {
            let answer = reporter::deliver(&self.store, id, report).await?;
            if let (_, _, Some(waiting)) = self.unwritten.remove(0) {
                let _ = waiting.send(answer);
            }
        }
        Ok(())
    }

    /// The jobs database is away or refuses: says so once, and opens a new session. The locks were the old session's; a job
    /// whose lock another daemon has taken meanwhile is left to it.
    async fn reconnect(&mut self, error: DatabaseError, lost: &mut Option<String>) {
        let message = error.to_string();
        if lost.as_deref() != Some(&message) {
            tracing::warn!("the jobs database does not answer, trying again: {message}");
            *lost = Some(message);
        }
        if !self.store.session().is_closed() {
            return;
        }
        tokio::select! {
            () = self.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let Ok(store) = open_store(&self.options).await else {
            return;
        };
        self.store = store;
        tracing::info!("connected to the jobs database again");
        let held: Vec<JobId> = self
            .running
            .keys()
            .chain(&self.tearing_down)
            .cloned()
            .collect();
        for id in held {
            match lock::try_lock(&self.store, &id).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(job = %id, "another daemon has taken this job over");
                    if let Some(running) = self.running.remove(&id) {
                        running.cancel.cancel();
                    }
                    self.waiting.insert(id, Instant::now() + ASK_AGAIN);
                }
                Err(_) => return,
            }
        }
    }

    async fn wind_down(mut self) {
        tracing::info!(
            "stopping: finishing what is under way in {} jobs",
            self.running.len()
        );
        if tokio::time::timeout(GRACE, self.let_jobs_finish())
            .await
            .is_err()
        {
            tracing::warn!(
                "{} jobs did not stop in time; they go on from their confirmed position at the next start",
                self.running.len()
            );
        }
        self.tasks.shutdown().await;
        tracing::info!("stopped");
    }

    /// What is being torn down may take for ever and is not waited for: the next daemon sees to it.
    async fn let_jobs_finish(&mut self) {
        while !self.running.is_empty() {
            let written = tokio::select! {
                Some(message) = self.messages.recv() => {
                    self.unwritten.push(message);
                    self.write_reports().await
                }
                Some(ending) = self.tasks.join_next() => {
                    if let Ok(Ending::Job(id, ended)) = ending {
                        self.running.remove(&id);
                        if let Ended::Failed(reason) = ended {
                            tracing::error!(job = %id, "failed: {reason}");
                            self.unwritten.push((id, Report::Failed(reason), None));
                        }
                    }
                    self.write_reports().await
                }
            };
            if let Err(error) = written {
                tracing::warn!("not written to the jobs table: {error}");
                self.unwritten.clear();
            }
        }
    }
}

async fn open_store(options: &Options) -> Result<JobStore, JobsTableError> {
    let session = Session::open(&options.database).await?;
    let table = JobsTable::discover(
        &session,
        &options.schema,
        &options.table,
        options.label.as_deref(),
    )
    .await?;
    Ok(JobStore::new(session, table, options.label.clone()))
}
