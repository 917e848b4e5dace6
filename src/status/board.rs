//! The state of all jobs that a daemon knows, for those who watch it over HTTP.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::daemon_status::DaemonStatus;
use super::job_status::JobStatus;
use super::served_models::ServedModels;

/// The time between two samples of the history.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: those of a quarter of an hour.
const MAX_SAMPLES: usize = 180;

/// All that is shown, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The daemon.
    pub daemon: DaemonStatus,
    /// The jobs of its jobs table and label, in the order of the table.
    pub jobs: Vec<JobStatus>,
    /// The newest rows in the failures table.
    pub failures: Vec<FailedRow>,
}

/// A row in the failures table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailedRow {
    /// The job.
    pub job: String,
    /// The row's key, as JSON.
    pub key: String,
    /// Why it could not be embedded or written.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When, as text.
    pub failed_at: String,
}

/// The figures of a job over the last minutes, the oldest first, one each [`SAMPLE_INTERVAL`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct History {
    /// Rows a second.
    pub rows_per_second: VecDeque<f64>,
    /// The age of the oldest change without a vector, in seconds.
    pub lag_seconds: VecDeque<f64>,
}

/// Holds the newest [`Snapshot`]: the supervisor publishes, watchers read.
#[derive(Clone, Default)]
pub struct StatusBoard {
    board: Arc<Mutex<Board>>,
    models: ServedModels,
}

#[derive(Default)]
struct Board {
    snapshot: Option<Arc<Snapshot>>,
    history: BTreeMap<String, History>,
    sampled: Option<Instant>,
    published: Option<Published>,
    beat: Option<Instant>,
}

/// When the newest [`Snapshot`] was published.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// By the clock that only goes forward.
    pub at: Instant,
    /// By the clock of the machine.
    pub time: SystemTime,
}

impl StatusBoard {
    /// Replaces the snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        let mut board = self.lock();
        let is_due = |sampled: Instant| sampled.elapsed() >= SAMPLE_INTERVAL;
        if board.sampled.is_none_or(is_due) {
            board.sampled = Some(Instant::now());
            board.sample(&snapshot);
        }
        board.snapshot = Some(Arc::new(snapshot));
        board.published = Some(Published {
            at: Instant::now(),
            time: SystemTime::now(),
        });
    }

    /// The newest snapshot; `None` until the daemon has read its jobs table.
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.lock().snapshot.clone()
    }

    /// When that snapshot was published: a daemon that hangs publishes none.
    pub fn published(&self) -> Option<Published> {
        self.lock().published
    }

    /// The daemon is alive, also while a server keeps it waiting and it has nothing new to say.
    pub fn beat(&self) {
        self.lock().beat = Some(Instant::now());
    }

    /// When the daemon was last known to be alive.
    pub fn last_beat(&self) -> Option<Instant> {
        self.lock().beat
    }

    /// The last minutes of each job, by its id.
    pub fn history(&self) -> BTreeMap<String, History> {
        self.lock().history.clone()
    }

    /// The models of the running jobs, for programs that ask for vectors.
    pub fn models(&self) -> &ServedModels {
        &self.models
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn sample(&mut self, snapshot: &Snapshot) {
        let ids: Vec<&str> = snapshot.jobs.iter().map(|job| job.id.as_str()).collect();
        self.history.retain(|id, _| ids.contains(&id.as_str()));
        for job in &snapshot.jobs {
            let history = self.history.entry(job.id.clone()).or_default();
            push(
                &mut history.rows_per_second,
                job.rows_per_second.unwrap_or(0.0),
            );
            push(&mut history.lag_seconds, job.lag_seconds.unwrap_or(0.0));
        }
    }
}

fn push(samples: &mut VecDeque<f64>, sample: f64) {
    if samples.len() == MAX_SAMPLES {
        samples.pop_front();
    }
    samples.push_back(sample);
}
