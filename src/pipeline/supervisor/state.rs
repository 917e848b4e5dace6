//! What the supervisor remembers. The other files of this module each add methods to [`Supervisor`].
//!
//! A job is in at most one of two maps, and in both this daemon holds its lock:
//!
//! ```text
//!  (lock taken) ──▶ running ──▶ tearing_down ──▶ (lock released)
//!                      └──────────────────────────────▲ stopped or handed over
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::embedding::Engine;
use crate::jobs::definition::{JobId, JobRow};
use crate::jobs::known_rows::KnownRows;
use crate::jobs::presence::{Pid, Stranger};
use crate::jobs::reporter::ReportMessage;
use crate::jobs::store::JobStore;
use crate::jobs::table::JobsTableError;
use crate::jobs::watcher::{Change, Watcher};
use crate::pipeline::capture::registry::ReaderRegistry;
use crate::pipeline::setup::database_watch::DatabaseWatches;
use crate::pipeline::slot::names;
use crate::pipeline::supervisor::fleet::Fleet;
use crate::pipeline::supervisor::heartbeat::Heartbeat;
use crate::pipeline::supervisor::observed::{Observation, ObservedJob};
use crate::pipeline::supervisor::options::{SlotAllocation, SupervisorOptions};
use crate::pipeline::supervisor::orphans::Candidate;
use crate::pipeline::supervisor::pulse::LoopListener;
use crate::pipeline::supervisor::session;
use crate::pipeline::supervisor::session::SessionId;
use crate::pipeline::supervisor::tasks::TaskSet;
use crate::reminder::Reminder;
use crate::replication::SlotName;
use crate::status::StatusBoard;

/// The most targets that are cleaned up at a time. The first poll may find hundreds of canceled jobs.
const MAX_TEARDOWNS: usize = 4;

/// Runs the jobs of a jobs table.
pub struct Supervisor {
    pub(super) options: Arc<SupervisorOptions>,
    pub(super) engine: Engine,
    /// The daemon is told to stop.
    pub(super) stop: CancellationToken,
    pub(super) store: JobStore,
    pub(super) session: SessionId,
    /// When the jobs database last answered.
    pub(super) last_answer: Instant,
    pub(super) known: KnownRows,
    pub(super) watcher: Watcher,
    /// Changes of the table that are not handled yet.
    pub(super) changes: VecDeque<Change>,
    pub(super) running: BTreeMap<JobId, Running>,
    pub(super) tearing_down: BTreeMap<JobId, TearingDown>,
    /// Jobs that ended elsewhere, or before this daemon started. The daemon that ran them removes their slots, unless
    /// it crashes first. So the daemon that gets the lock next checks once.
    pub(super) leftovers: BTreeMap<JobId, Leftovers>,
    /// Teardowns that their jobs do not wait for.
    pub(super) parked: Vec<Parked>,
    pub(super) orphan_search: OrphanSearch,
    /// What the log has said of rows that are skipped for their ids.
    pub(super) unusable_ids: Reminder,
    /// When it was asked last whether another session needs the jobs database for itself.
    pub(super) asked_to_leave: Instant,
    /// The log has named the jobs that had failed before this daemon started.
    pub(super) earlier_failures_told: bool,
    pub(super) teardown_turns: Arc<Semaphore>,
    pub(super) fleet: Fleet,
    pub(super) claims: Claims,
    /// The slot readers that jobs share, with one slot per database.
    pub(super) readers: Option<ReaderRegistry>,
    /// The databases that the jobs watch.
    pub(super) databases: DatabaseWatches,
    /// The shared slots whose locks this daemon holds: no other daemon may run jobs of these.
    pub(super) shared_slots: BTreeSet<SlotName>,
    pub(super) tasks: TaskSet,
    pub(super) heartbeat: Heartbeat,
    pub(super) observation: Observation,
    /// Hears of the loop.
    pub(super) listener: Option<Box<dyn LoopListener>>,
    /// What is left to do for a daemon that ends by itself.
    pub(super) catch_up: Option<CatchUp>,
    pub(super) messages: mpsc::Receiver<ReportMessage>,
    /// The other end of `messages`, for the reporters of jobs.
    pub(super) sender: mpsc::Sender<ReportMessage>,
    /// Reports that are not written yet.
    pub(super) unwritten: VecDeque<ReportMessage>,
}

/// A job that runs here.
pub(super) struct Running {
    pub row: JobRow,
    /// Asks the job to finish what is under way.
    pub stop: CancellationToken,
    /// Ends the job at once.
    pub cancel: CancellationToken,
    pub since: Instant,
    /// An attempt has looked at the table and the slot, and its row says so.
    pub has_begun: bool,
    pub after_end: AfterEnd,
    pub observed: ObservedJob,
}

/// What follows when a running job has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterEnd {
    /// That depends on how it ended: it was not asked to end.
    ByOutcome,
    /// Its lock is released. Slot and publication stay for the daemon that starts the job next.
    ReleaseLock,
    /// As [`AfterEnd::ReleaseLock`]: another daemon has fewer jobs. At this moment the job is canceled if it has not
    /// ended.
    HandOver(Instant),
    /// Its slot and publication are removed.
    TearDown,
    /// Nothing: another daemon holds its lock by now.
    Forget,
}

impl Running {
    /// Ends the job at once. A teardown that is already due stays due, and so does [`AfterEnd::Forget`].
    pub fn end(&mut self, after_end: AfterEnd) {
        if !matches!(self.after_end, AfterEnd::TearDown | AfterEnd::Forget) {
            self.after_end = after_end;
        }
        self.cancel.cancel();
    }
}

/// A job whose slot and publication are being removed.
pub(super) struct TearingDown {
    pub leftovers: Leftovers,
    pub task: AbortHandle,
    /// Ends the teardown while it waits.
    pub recalled: CancellationToken,
    /// An attempt has failed.
    pub delayed: Arc<AtomicBool>,
}

/// The teardown of a definition that its job has left for another database, while the old one cannot be reached. The
/// job goes on in the new one, so this teardown holds no lock.
pub(super) struct Parked {
    pub row: JobRow,
    /// Ends the teardown while it waits.
    pub recalled: CancellationToken,
}

/// What may be left of an ended job.
#[derive(Default)]
pub(super) struct Leftovers {
    /// The rows that it had. Each definition has names of its own.
    pub rows: Vec<JobRow>,
    /// Another daemon has held the job's lock since the job ended.
    pub elsewhere: bool,
}

impl From<JobRow> for Leftovers {
    /// Of a job that ran here until now.
    fn from(row: JobRow) -> Self {
        Leftovers {
            rows: vec![row],
            elsewhere: false,
        }
    }
}

/// The search for slots that belong to no job: once in a daemon's life.
pub(super) enum OrphanSearch {
    Due,
    /// A task lists candidates.
    Listing,
    /// The candidates are listed; the rows have not been read since.
    Listed(Vec<Candidate>),
    /// A task removes orphans.
    Removing,
    /// Over, but for the lock.
    Removed,
    Done,
}

/// How far the jobs of a daemon are that ends by itself, by the names of their own slots: a job that becomes another one
/// begins again.
#[derive(Default)]
pub(super) struct CatchUp {
    /// Tasks that wait for the slots of jobs.
    pub waiting: BTreeMap<SlotName, AbortHandle>,
    /// The slot has confirmed the end. The row has to be read once more: before a slot is replaced, it says that every row
    /// has to be scanned.
    pub confirmed: BTreeSet<SlotName>,
    pub done: BTreeSet<SlotName>,
    /// The jobs that were not done when the rows were read last.
    pub unfinished: Vec<JobId>,
    pub is_over: bool,
}

/// What the division of jobs remembers from one poll to the next.
pub(super) struct Claims {
    /// Jobs that no daemon runs, and since when.
    pub unclaimed: BTreeMap<JobId, Instant>,
    /// Jobs that another daemon runs.
    pub elsewhere: BTreeMap<JobId, Pid>,
    /// No further job is claimed before this moment.
    pub claim_after: Instant,
    /// No job is handed over before this moment.
    pub hand_over_after: Instant,
    /// Daemons about which there is a warning in the log already.
    pub warned: Vec<Pid>,
    /// Sessions with a lock of ours about which there is a warning in the log already.
    pub strangers: BTreeSet<Stranger>,
    /// Jobs that wait because this daemon runs as many as it may.
    pub over_limit: BTreeSet<JobId>,
}

impl Claims {
    fn new() -> Self {
        let now = Instant::now();
        Claims {
            unclaimed: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            claim_after: now,
            hand_over_after: now,
            warned: Vec::new(),
            strangers: BTreeSet::new(),
            over_limit: BTreeSet::new(),
        }
    }
}

impl Supervisor {
    /// Connects to the jobs database and checks the jobs table. What the jobs do will stand on `board`.
    ///
    /// # Errors
    /// The database cannot be reached, or the table cannot be used.
    pub async fn open(
        options: SupervisorOptions,
        engine: Engine,
        board: StatusBoard,
        stop: CancellationToken,
    ) -> Result<Self, JobsTableError> {
        let (store, session) = session::open(&options).await?;
        session::check_exposure(&store, options.powerful_roles).await?;
        let (sender, messages) = mpsc::channel(256);
        let shares_slots = options.slots == SlotAllocation::PerDatabase;
        Ok(Supervisor {
            options: Arc::new(options),
            engine,
            stop,
            store,
            session,
            last_answer: Instant::now(),
            known: KnownRows::default(),
            watcher: Watcher::default(),
            changes: VecDeque::new(),
            running: BTreeMap::new(),
            tearing_down: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            parked: Vec::new(),
            orphan_search: OrphanSearch::Due,
            unusable_ids: Reminder::default(),
            asked_to_leave: Instant::now(),
            earlier_failures_told: false,
            teardown_turns: Arc::new(Semaphore::new(MAX_TEARDOWNS)),
            fleet: Fleet::default(),
            claims: Claims::new(),
            readers: shares_slots.then(ReaderRegistry::default),
            databases: DatabaseWatches::default(),
            shared_slots: BTreeSet::new(),
            tasks: TaskSet::default(),
            heartbeat: Heartbeat::new(std::time::Instant::now()),
            observation: Observation::new(board),
            listener: None,
            catch_up: None,
            messages,
            sender,
            unwritten: VecDeque::new(),
        })
    }

    /// The same supervisor, whose loop is heard by `listener`.
    #[must_use]
    pub fn heard_by(mut self, listener: Option<Box<dyn LoopListener>>) -> Self {
        self.listener = listener;
        self
    }

    /// Whether the job shares a slot with others. This is the one place that decides.
    pub(super) fn shares_slot(&self, row: &JobRow) -> bool {
        self.readers.is_some() && !row.definition.needs_own_slot()
    }

    /// The name of the slot that the job shares with others, or would share with `--slots database`.
    pub(super) fn shared_slot(&self, row: &JobRow) -> SlotName {
        let identity = self.store.table().identity();
        names::shared_slot(identity, self.options.label.as_deref(), &row.definition)
    }

    /// The jobs whose locks this daemon should hold.
    pub(super) fn locked_jobs(&self) -> BTreeSet<JobId> {
        let running = self.running.iter();
        let running = running.filter(|(_, running)| running.after_end != AfterEnd::Forget);
        let running = running.map(|(id, _)| id);
        running.chain(self.tearing_down.keys()).cloned().collect()
    }
}
