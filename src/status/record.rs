//! What a daemon writes about a job into the column `stats` of its row, for those who ask the database and not the daemon.
//!
//! The keys are a contract: the views of `sql/monitoring.sql` and dashboards read them. Further ones may come.

use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::lag::WalStatus;
use super::rates::Today;
use crate::embedding::{DeviceState, ServerState};

/// The state of a running job, as its daemon sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The daemon that runs the job.
    pub daemon: DaemonName,
    /// The key of the advisory lock that it holds in the jobs database for as long as it runs the job.
    pub lock_key: i64,
    /// When this was written, in seconds since 1970-01-01 UTC by the daemon's clock.
    pub written_at: f64,
    /// What the job does.
    pub phase: Phase,
    /// What computes the vectors, such as `cpu`.
    pub provider: String,
    /// The servers of the model; none where this process computes the vectors.
    #[serde(default)]
    pub servers: Vec<ServerRecord>,
    /// The devices that run the model; none where a processor does, or a server.
    #[serde(default)]
    pub devices: Vec<DeviceRecord>,
    /// Rows that got their vector, a second, over the last ten seconds.
    pub rows_per_second: f64,
    /// The same since midnight UTC.
    pub today: Today,
    /// The scan of existing rows that is under way.
    pub scan: Option<Scan>,
    /// The age of the oldest change that is not finished, in seconds; 0 if all are, and `None` while the stream is not read.
    pub lag_seconds: Option<f64>,
    /// The replication slot, as last seen.
    pub slot: Option<SlotRecord>,
    /// How many rows have a vector: looked at each minute, of large tables by some random pages.
    pub coverage: Option<Coverage>,
    /// Rows in the failures table.
    pub quarantined_rows: u64,
    /// What was done since the daemon started the job.
    pub totals: Totals,
}

impl JobRecord {
    /// The record in this JSON; `None` where it is none, or that of another version.
    pub fn from_json(json: &str) -> Option<JobRecord> {
        serde_json::from_str(json).ok()
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        // None of its types fails, and its numbers are finite.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether both say the same, at whatever time. Lag in bytes grows with every write to the database, also while the
    /// job has nothing to do: it counts as the same while both are small.
    pub fn says_the_same(&self, other: &JobRecord) -> bool {
        const SMALL: u64 = 1 << 20;
        let is_near = |a: u64, b: u64| a == b || a < SMALL && b < SMALL;
        let slots = match (&self.slot, &other.slot) {
            (Some(a), Some(b)) => {
                a.wal_status == b.wal_status
                    && is_near(a.lag_bytes, b.lag_bytes)
                    && is_near(a.retained_bytes / 16, b.retained_bytes / 16)
            }
            (a, b) => a == b,
        };
        let rest = |record: &JobRecord| {
            let mut rest = JobRecord {
                written_at: 0.0,
                slot: None,
                ..record.clone()
            };
            // Those of other jobs count, too, and are no news of this one.
            rest.devices
                .iter_mut()
                .for_each(|device| device.batches = 0);
            rest
        };
        slots && rest(self) == rest(other)
    }
}

/// Names a daemon for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonName {
    /// The name of its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

impl DaemonName {
    /// This process.
    pub fn of_this_process() -> DaemonName {
        let host = nix::unistd::gethostname().ok();
        DaemonName {
            host: host.map_or_else(|| "?".into(), |host| host.to_string_lossy().into_owned()),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What a running job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It checks its table, loads its model or creates its slot.
    Starting,
    /// It embeds the rows that exist.
    Backfilling,
    /// It follows the changes of its table.
    Streaming,
    /// It waits until it may try again.
    Interrupted,
}

impl Phase {
    /// All phases.
    pub const ALL: [Phase; 4] = [
        Phase::Starting,
        Phase::Backfilling,
        Phase::Streaming,
        Phase::Interrupted,
    ];
}

/// A scan of existing rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// Rows that are finished.
    pub rows_done: u64,
    /// Rows in all, as counted at the start.
    pub rows_total: u64,
    /// Rows a second.
    pub rows_per_second: f64,
}

impl Scan {
    /// How many seconds it still takes at this rate; `None` while there is no rate.
    pub fn seconds_left(&self) -> Option<f64> {
        let left = self.rows_total.saturating_sub(self.rows_done) as f64;
        (self.rows_per_second > 0.0).then(|| left / self.rows_per_second)
    }

    /// Percent of the rows, 0 to 100.
    pub fn percent(&self) -> u8 {
        match self.rows_total {
            0 => 100,
            total => (self.rows_done.min(total) * 100 / total) as u8,
        }
    }
}

/// How many rows have a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Rows with a text.
    pub rows_with_text: u64,
    /// Rows with a text and a vector; of a job with a chunk table, those with a text and passages.
    pub rows_with_vector: u64,
    /// Passages of the chunk table, if the job has one.
    #[serde(default)]
    pub passages: Option<u64>,
    /// Whether the rows were counted. Otherwise the numbers are estimated from some pages of the table.
    pub is_exact: bool,
}

/// A server that embeds texts. It counts for all jobs of the daemon that use it with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The provider and the host.
    pub server: String,
    /// Requests that were sent since the first job used it.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Why nothing is sent to it now; `None` while it takes texts.
    pub trouble: Option<String>,
}

impl From<ServerState> for ServerRecord {
    fn from(state: ServerState) -> Self {
        ServerRecord {
            trouble: state.trouble(),
            server: state.server,
            requests: state.requests,
            failures: state.failures,
        }
    }
}

/// A device that runs the model. It counts for all jobs of the daemon with that model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its name, such as `cuda:1`.
    pub device: String,
    /// Batches that it has run since the model was loaded.
    pub batches: u64,
    /// Since when it computes nothing, in seconds since 1970-01-01 UTC; `None` while it computes.
    pub lost_since: Option<f64>,
    /// Its last error since then.
    pub error: Option<String>,
}

impl From<DeviceState> for DeviceRecord {
    fn from(state: DeviceState) -> Self {
        let (since, error) = state
            .outage
            .map(|outage| (outage.since, outage.error))
            .unzip();
        DeviceRecord {
            device: state.device,
            batches: state.batches,
            lost_since: since.map(|since| {
                let since_epoch = since.duration_since(UNIX_EPOCH);
                since_epoch.unwrap_or_default().as_secs_f64()
            }),
            error,
        }
    }
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Its name.
    pub name: String,
    /// `wal_status` of `pg_replication_slots`.
    pub wal_status: WalStatus,
    /// WAL from `restart_lsn` on, in bytes: what the server may not remove.
    pub retained_bytes: u64,
    /// WAL from `confirmed_flush_lsn` on, in bytes: what the job has yet to work off.
    pub lag_bytes: u64,
    /// `confirmed_flush_lsn`.
    pub confirmed_lsn: String,
}

/// What a job has done since its daemon started it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Rows whose vector, or passages, were written or removed.
    pub rows_written: u64,
    /// Passages that were written, of a job with a chunk table.
    #[serde(default)]
    pub passages_written: u64,
    /// Rows that were gone, held another text, or changed again before their vector was written.
    pub rows_superseded: u64,
    /// Rows that were quarantined.
    pub rows_quarantined: u64,
    /// Texts that got a vector.
    pub texts: u64,
    /// Texts whose vector was known, or computed for an equal text at the same time.
    pub cache_hits: u64,
    /// Texts that were longer than the model's window.
    pub texts_truncated: u64,
    /// Tokens that the model read.
    pub tokens: u64,
    /// Batches that the model ran with texts of this job.
    pub batches: u64,
    /// Requests to the model's servers with texts of this job, those that failed too; 0 for a model of this machine.
    #[serde(default)]
    pub requests: u64,
    /// The job's share of the time of inference, by tokens, in seconds of one thread.
    pub inference_seconds: f64,
    /// What the tokens cost at the model's server, in the currency of `price_per_million`; 0 without a price.
    #[serde(default)]
    pub estimated_cost: f64,
    /// Write-backs.
    pub write_backs: u64,
    /// The time that they took.
    pub write_back_seconds: f64,
}
