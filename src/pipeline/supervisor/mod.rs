//! Runs the jobs of the jobs table, each by itself: starts, replaces, cancels, and writes down what they report. Several
//! daemons may do so with one table; each job is run by one of them.
//!
//! One task owns the session to the jobs database. Jobs talk to it through a [`Reporter`](super::reporter::Reporter); while
//! that database is away they go on with their work and their reports wait. Nothing in this task waits for anything but that
//! database: the others take a daemon that is not heard for some seconds for dead.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `claims` | which jobs this daemon starts, and which it leaves to others |
//! | `endings` | what follows when a job ends or has to |
//! | `connection` | what holds when the jobs database was away, and when the daemon stops |

mod claims;
mod cleanup;
mod connection;
mod fleet;
mod orphans;
mod teardown;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::embedding::Engine;
use crate::jobs::reporter::Message;
use crate::jobs::table::JobsTableError;
use crate::jobs::watcher::{Change, Watcher};
use crate::jobs::{JobId, JobRow, JobStore};
use crate::pipeline::capture::registry::ReaderRegistry;
use crate::pipeline::slot::names;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::pipeline::supervisor::fleet::Fleet;
use crate::postgres::{AllowedHosts, ConnectionString, DatabaseError};
use crate::replication::SlotName;
use cleanup::Ending;
use connection::SessionId;

/// How often the jobs table is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(400);

/// Where the jobs are.
#[derive(Debug, Clone)]
pub struct Options {
    pub database: ConnectionString,
    pub schema: String,
    pub table: String,
    /// Only rows with this label are this daemon's.
    pub label: Option<String>,
    /// Where jobs may connect.
    pub allowed_hosts: AllowedHosts,
    /// The most WAL that each slot may hold back.
    pub max_retained_wal: RetentionLimit,
    pub slots: Slots,
}

/// Who has a replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// Each job.
    Job,
    /// All jobs of one target database together. One daemon runs them all, since a slot has one reader.
    Database,
}

/// A job that runs here.
struct Running {
    row: JobRow,
    /// Finish what is under way.
    stop: CancellationToken,
    /// Drop everything.
    cancel: CancellationToken,
    since: Instant,
    then: Then,
}

/// A job whose slot and publication are being removed.
struct TearingDown {
    leftovers: Leftovers,
    task: AbortHandle,
}

/// What may be left of a job that has ended: the rows that it had.
#[derive(Default)]
struct Leftovers {
    rows: Vec<JobRow>,
    /// Another daemon held the job's lock meanwhile.
    elsewhere: bool,
}

impl Leftovers {
    fn of(row: JobRow) -> Self {
        Leftovers {
            rows: vec![row],
            elsewhere: false,
        }
    }
}

/// What to do when a job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It ended by itself.
    Nothing,
    /// Let go of its lock; slot and publication stay for whoever starts it next.
    Release,
    /// As [`Then::Release`], at this moment at the latest: another daemon has less to do than we.
    HandOver(Instant),
    /// Remove what is left of it.
    TearDown,
    /// Nothing: its lock is another daemon's by now.
    Forget,
}

pub struct Supervisor {
    options: Arc<Options>,
    engine: Engine,
    stop: CancellationToken,
    store: JobStore,
    session: SessionId,
    /// When the jobs database last did what it was asked.
    last_answer: Instant,
    watcher: Watcher,
    changes: VecDeque<Change>,
    running: BTreeMap<JobId, Running>,
    /// Ended jobs whose leftovers are being removed here. The locks of these and of the running ones are ours.
    tearing_down: BTreeMap<JobId, TearingDown>,
    /// Jobs that ended elsewhere. Who ran them cleans up, unless it died over it: whoever gets the lock looks once.
    leftovers: BTreeMap<JobId, Leftovers>,
    sweep: Sweep,
    /// So many targets are cleaned up at a time: a first look may find hundreds of cancelled jobs.
    teardown_turns: Arc<Semaphore>,
    fleet: Fleet,
    claims: claims::Claims,
    /// The feeds that jobs share, where they do.
    feeds: Option<ReaderRegistry>,
    /// Databases whose jobs this daemon alone may run, by their shared slots. Their locks are ours.
    databases: BTreeSet<SlotName>,
    tasks: JoinSet<Ending>,
    messages: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    /// Reports that are not written yet.
    unwritten: Vec<Message>,
}

/// The search for slots that belong to no job, once in a daemon's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Due,
    UnderWay,
    Done,
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
        let (store, session) = connection::open(&options).await?;
        let (sender, messages) = mpsc::channel(256);
        let feeds = (options.slots == Slots::Database).then(ReaderRegistry::default);
        Ok(Supervisor {
            options: Arc::new(options),
            engine,
            stop,
            store,
            session,
            last_answer: Instant::now(),
            watcher: Watcher::default(),
            changes: VecDeque::new(),
            running: BTreeMap::new(),
            tearing_down: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            sweep: Sweep::Due,
            teardown_turns: Arc::new(Semaphore::new(4)),
            fleet: Fleet::default(),
            claims: claims::Claims::new(),
            feeds,
            databases: BTreeSet::new(),
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
        let mut said = None;
        loop {
            let silence = connection::silence(self.options.clone(), self.session.clone());
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                step = self.step(&mut clock) => step,
                lost = silence => Err(lost),
            };
            match step {
                Ok(()) => {
                    said = None;
                    self.last_answer = Instant::now();
                }
                Err(error) => tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.recover(error, &mut said) => {}
                },
            }
        }
        self.wind_down().await;
    }

    /// Waits for the next thing to do and does it. Dropped in the middle only when the daemon stops or the session is lost.
    async fn step(&mut self, clock: &mut Interval) -> Result<(), DatabaseError> {
        tokio::select! {
            biased;
            Some(message) = self.messages.recv() => {
                self.hear(message);
                self.write_reports().await
            }
            Some(ending) = self.tasks.join_next() => match ending {
                Ok(ending) => self.ended(ending).await,
                Err(error) if error.is_cancelled() => Ok(()),
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
        if let Some(feeds) = &self.feeds {
            let identity = self.store.table().identity();
            let member = |row| MemberId::from_slot(&names::own_slot(identity, row));
            feeds.set_known(rows.iter().map(member).collect());
        }
        // Kept until they are dealt with: the connection may break in between.
        self.changes.extend(self.watcher.observe(&rows));
        while let Some(change) = self.changes.pop_front() {
            self.follow(change);
        }
        self.share_out().await?;
        self.sweep(rows).await
    }

    /// Does what a change asks for, or notes it.
    fn follow(&mut self, change: Change) {
        match change {
            Change::Restart(id) => {
                tracing::info!(job = %id, "the definition has changed; starting again");
                if let Some(running) = self.running.get_mut(&id) {
                    running.end(Then::Release);
                }
            }
            Change::Replace(old) => {
                tracing::info!(job = %old.id, "the job has become another one; starting over");
                self.end(*old);
            }
            Change::Cancel(row) => self.end(*row),
            // Who ran it here has noted it already; and what runs now, runs.
            Change::Failed(row) => {
                if !self.running.contains_key(&row.id) {
                    self.end(*row);
                }
            }
        }
    }

    /// The slot that the job shares, or would share, with others.
    fn shared_slot(&self, row: &JobRow) -> SlotName {
        let identity = self.store.table().identity();
        names::shared_slot(identity, self.options.label.as_deref(), &row.definition)
    }

    /// The locks of jobs that this daemon should hold.
    fn held(&self) -> BTreeSet<JobId> {
        let running = self.running.iter();
        let running = running.filter(|(_, running)| running.then != Then::Forget);
        let running = running.map(|(id, _)| id);
        running.chain(self.tearing_down.keys()).cloned().collect()
    }
}

impl Running {
    /// Ends the job at once; what follows when it has ended may only become more.
    fn end(&mut self, then: Then) {
        if !matches!(self.then, Then::TearDown | Then::Forget) {
            self.then = then;
        }
        self.cancel.cancel();
    }
}
