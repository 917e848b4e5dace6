//! What a job needs to run, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::interruption::Interruption;
use crate::embedding::{Engine, Model};
use crate::jobs::JobRow;
use crate::jobs::reporter::Reporter;
use crate::pipeline::backfill::partitions::Partitions;
use crate::pipeline::capture::subscription::Subscription;
use crate::pipeline::setup::database_watch::DatabaseWatches;
use crate::pipeline::setup::preflight::users_code::PowerfulRoles;
use crate::postgres::{ConnectionString, JobAccess};
use crate::reminder::Reminder;
use crate::status::served_models::Offer;
use crate::status::{JobCounters, ServedModels};

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd {
    /// The daemon stops. The job continues at the next start.
    Stopped,
    /// The job was canceled while it ran. Its slot and publication still exist.
    Canceled,
    /// A person has to act first. The text is for `init_failure_reason`.
    Failed(String),
}

/// A job and what it needs to run.
pub struct Job {
    /// Its row, with the state of the initial backfill as this job has brought it about.
    pub row: JobRow,
    /// How it gets the changes of its table.
    pub subscription: Subscription,
    /// Computes vectors.
    pub engine: Engine,
    /// Loaded by the first attempt and kept: retries during an outage must not load the model each time.
    pub model: Option<Model>,
    /// The models that programs may use.
    pub served: ServedModels,
    /// Its own among them, once it is loaded.
    pub offer: Option<Offer>,
    /// The same under the ids of jobs that it has replaced.
    pub offers_of_replaced: Vec<Offer>,
    /// Writes into the job's row.
    pub reporter: Reporter,
    /// What it does and has done, for those who watch.
    pub counters: Arc<JobCounters>,
    /// The identity of the jobs table.
    pub jobs_table: u32,
    /// What is said of the job while it is interrupted.
    pub interruption: Interruption,
    /// It has run before, here or in another daemon.
    pub has_run: bool,
    /// When a daemon with another copy of the jobs table was last seen to run the job.
    pub seen_elsewhere: Option<Instant>,
    /// Where the job may connect.
    pub access: JobAccess,
    /// What to do if others could gain rights through the job's role.
    pub powerful_roles: PowerfulRoles,
    /// What the log has said about that.
    pub exposure: Reminder,
    /// The partitions of its table that it knows.
    pub partitions: Partitions,
    /// The databases that the jobs of its daemon watch.
    pub databases: DatabaseWatches,
    /// What the attempts remember of its table.
    pub history: TableHistory,
    /// The job is to take over the column of another one, and has not done so at the last look.
    pub fills_new_column: bool,
    /// The daemon stops: finish what is in flight.
    pub stop: CancellationToken,
    /// The job is canceled: drop everything.
    pub cancel: CancellationToken,
}

/// What the attempts of a job remember of its table.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableHistory {
    /// The table that the last attempt followed, by OID.
    pub followed: Option<u32>,
    /// The table for passages that it filled, by OID.
    pub chunk_table: Option<u32>,
    /// Its changes are sent with all of its columns.
    pub sends_whole_rows: bool,
    /// When it was last seen that this table had lost its name to another one, or to none.
    pub gone_at: Option<Instant>,
}

impl TableHistory {
    /// Whether the table was replaced only just now. What replaces it may still be at work: it loads rows,
    /// or adds the key.
    pub fn is_settling(&self) -> bool {
        self.gone_at.is_some_and(|gone| gone.elapsed() < SETTLING)
    }
}

/// How long a table may be without what the job needs after it was replaced.
const SETTLING: Duration = Duration::from_secs(20);

/// Identifiers longer than 63 bytes are truncated by the server; this leaves room for the rest of a session's name.
const MAX_ID_LENGTH: usize = 36;

impl Job {
    /// The target database, for a session whose name says what it does for this job.
    pub(super) fn named(&self, database: &ConnectionString, task: &str) -> ConnectionString {
        let id: String = self.row.id.as_str().chars().take(MAX_ID_LENGTH).collect();
        database.named(&format!("job {id} {task}"))
    }
}
