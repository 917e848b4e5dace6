//! The state of a job: one value for all who show it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::lag::WalStatus;
use super::record::{
    Coverage, DaemonName, DeviceRecord, JobRecord, Phase, Scan, ServerRecord, SlotRecord, Totals,
};
use crate::jobs::stats::JobRemarks;
use crate::jobs::{InitProgress, JobRow};
use crate::shown::shown;

/// The state of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The id of its row.
    pub id: String,
    /// Schema and name of its table, joined by a point.
    pub table: String,
    /// The column with the texts.
    pub source: Option<String>,
    /// The column with the vectors: of the table, or of the chunk table.
    pub destination: Option<String>,
    /// The table for passages, as the row names it, if the job has one. Then rows are documents.
    #[serde(default)]
    pub chunk_table: Option<String>,
    /// The name of the model.
    pub model: Option<String>,
    /// What computes the vectors, such as `cpu`.
    pub provider: Option<String>,
    /// The servers of the model; none where the daemon computes the vectors.
    #[serde(default)]
    pub servers: Vec<ServerRecord>,
    /// The devices that run the model; none where a processor does, or a server.
    #[serde(default)]
    pub devices: Vec<DeviceRecord>,
    /// What the job does.
    pub state: JobState,
    /// Why it is in that state, and what helps, if it does not run as it should.
    pub reason: Option<String>,
    /// The daemon that runs it now.
    pub daemon: Option<DaemonName>,
    /// When the figures below were taken, in seconds since 1970-01-01 UTC. A job that no daemon runs keeps the last ones.
    pub as_of: Option<f64>,
    /// Percent of the initial backfill.
    pub backfill_percent: u8,
    /// The scan of existing rows that is under way.
    pub scan: Option<ScanStatus>,
    /// How many rows have a vector, where it was asked for.
    pub coverage: Option<Coverage>,
    /// Rows that got their vector, a second, over the last ten seconds.
    pub rows_per_second: Option<f64>,
    /// The same since midnight UTC.
    pub rows_today: Option<u64>,
    /// WAL that the job has yet to work off, in bytes.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest change that has no vector yet; 0 if there is none, and `None` if no daemon reads the stream.
    pub lag_seconds: Option<f64>,
    /// The replication slot.
    pub slot: Option<SlotStatus>,
    /// What became of the index that the job asks for (`create_index`).
    pub index_state: Option<String>,
    /// Rows in the failures table.
    pub quarantined_rows: Option<u64>,
    /// What was done since the daemon started the job.
    pub totals: Option<Totals>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// No daemon has started it yet.
    Waiting,
    /// It checks its table, loads its model or creates its slot.
    Starting,
    /// It embeds the rows that exist, and those that change meanwhile.
    Backfilling,
    /// It follows the changes of its table.
    Streaming,
    /// It waits until it may try again, as while a server is away.
    Interrupted,
    /// No daemon runs it. It goes on where it was.
    Stopped,
    /// It waits for a person.
    Failed,
    /// It was canceled.
    Canceled,
}

impl JobState {
    /// All states.
    pub const ALL: [JobState; 8] = [
        JobState::Waiting,
        JobState::Starting,
        JobState::Backfilling,
        JobState::Streaming,
        JobState::Interrupted,
        JobState::Stopped,
        JobState::Failed,
        JobState::Canceled,
    ];

    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Starting => "starting",
            JobState::Backfilling => "backfilling",
            JobState::Streaming => "streaming",
            JobState::Interrupted => "interrupted",
            JobState::Stopped => "stopped",
            JobState::Failed => "failed",
            JobState::Canceled => "canceled",
        }
    }

    /// Whether all is well: vectors are kept up to date, or will be without a person.
    pub fn is_well(self) -> bool {
        matches!(
            self,
            JobState::Starting | JobState::Backfilling | JobState::Streaming | JobState::Canceled
        )
    }
}

/// A scan of existing rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScanStatus {
    /// Rows that are finished.
    pub rows_done: u64,
    /// Rows in all, as counted at the start.
    pub rows_total: u64,
    /// Rows a second.
    pub rows_per_second: f64,
    /// How many seconds it still takes at this rate; `None` while there is no rate.
    pub seconds_left: Option<f64>,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// `wal_status` of `pg_replication_slots`.
    pub wal_status: WalStatus,
    /// WAL that the server may not remove because of it, in bytes.
    pub retained_bytes: u64,
    /// Up to where the job is done.
    pub confirmed_lsn: String,
}

/// What a target server shows of a slot.
#[derive(Debug, Clone, Default)]
pub enum SlotNow {
    /// It was not asked.
    #[default]
    NotAsked,
    /// The slot, or that there is none.
    Shown(Option<SlotRecord>),
}

/// What [`JobStatus::assemble`] takes, besides the row.
#[derive(Debug, Clone, Default)]
pub struct JobFacts {
    /// Why the job is interrupted (`last_error`), if it is.
    pub last_error: Option<String>,
    /// What delays its start (`waits_for`).
    pub waits_for: Option<String>,
    /// What became of its index (`index_state`).
    pub index_state: Option<String>,
    /// What its daemon has recorded last.
    pub record: Option<JobRecord>,
    /// Whether a daemon runs it now.
    pub runs: bool,
    /// Its slot as the target server shows it now.
    pub slot: SlotNow,
    /// Rows in the failures table now, if they were counted.
    pub quarantined_rows: Option<u64>,
    /// How many rows have a vector, if it was asked.
    pub coverage: Option<Coverage>,
    /// The job is to replace another one, and has not done so.
    pub is_to_replace: bool,
}

impl From<JobRemarks> for JobFacts {
    /// What a row says. It does not say whether a daemon runs the job.
    fn from(remarks: JobRemarks) -> Self {
        JobFacts {
            record: remarks.stats.as_deref().and_then(JobRecord::from_json),
            last_error: remarks.last_error,
            waits_for: remarks.waits_for,
            index_state: remarks.index_state,
            ..JobFacts::default()
        }
    }
}

impl JobStatus {
    /// The state of the job of this row, of what its daemon has recorded and of what the servers show now. Figures of now
    /// replace recorded ones.
    pub fn assemble(row: &JobRow, facts: JobFacts) -> JobStatus {
        let state = state(row, &facts);
        let definition = &row.definition;
        let ongoing = ongoing(row, &facts);
        let record = facts.record;
        let running = record.as_ref().filter(|_| facts.runs);
        let slot = match facts.slot {
            SlotNow::Shown(slot) => slot,
            // Its slot was dropped.
            SlotNow::NotAsked if matches!(state, JobState::Failed | JobState::Canceled) => None,
            SlotNow::NotAsked => record.as_ref().and_then(|record| record.slot.clone()),
        };
        let reason = match state {
            JobState::Failed => row.failure_reason.clone(),
            JobState::Canceled => row
                .replaced_by
                .as_ref()
                .map(|successor| format!("replaced by job {successor}")),
            _ => ongoing,
        };
        let scan = running.and_then(|record| record.scan);
        JobStatus {
            id: row.id.to_string(),
            table: format!(
                "{}.{}",
                definition.schema,
                definition.table.as_deref().unwrap_or("?")
            ),
            source: definition.src_column.clone(),
            destination: definition.dst_column.clone(),
            chunk_table: definition.chunk_table.clone(),
            model: definition.embedding_model.clone(),
            provider: record.as_ref().map(|record| record.provider.clone()),
            servers: record
                .as_ref()
                .map(|record| record.servers.clone())
                .unwrap_or_default(),
            devices: running.map_or_else(Vec::new, |record| record.devices.clone()),
            state,
            reason: reason.as_deref().map(shown),
            daemon: running.map(|record| record.daemon.clone()),
            as_of: record.as_ref().map(|record| record.written_at),
            backfill_percent: percent(row, scan),
            scan: scan.map(ScanStatus::from),
            coverage: facts
                .coverage
                .or(record.as_ref().and_then(|record| record.coverage)),
            rows_per_second: running.map(|record| record.rows_per_second),
            rows_today: record
                .as_ref()
                .map(|record| record.today.count(SystemTime::now())),
            lag_bytes: slot.as_ref().map(|slot| slot.lag_bytes),
            lag_seconds: running.and_then(|record| record.lag_seconds),
            slot: slot.map(|slot| SlotStatus {
                name: slot.name,
                wal_status: slot.wal_status,
                retained_bytes: slot.retained_bytes,
                confirmed_lsn: slot.confirmed_lsn,
            }),
            index_state: facts.index_state.as_deref().map(shown),
            quarantined_rows: facts
                .quarantined_rows
                .or(record.as_ref().map(|record| record.quarantined_rows)),
            totals: record.map(|record| record.totals),
        }
    }
}

impl JobStatus {
    /// What the job counts: one of them, and many.
    pub fn unit(&self) -> (&'static str, &'static str) {
        match self.chunk_table {
            Some(_) => ("document", "documents"),
            None => ("row", "rows"),
        }
    }

    /// The column with the vectors, behind the name of its table if that is the chunk table.
    pub fn place_of_vectors(&self) -> Option<String> {
        let destination = self.destination.as_ref()?;
        Some(match &self.chunk_table {
            Some(table) => format!("{table}.{destination}"),
            None => destination.clone(),
        })
    }
}

impl From<Scan> for ScanStatus {
    fn from(scan: Scan) -> Self {
        ScanStatus {
            rows_done: scan.rows_done,
            rows_total: scan.rows_total,
            rows_per_second: scan.rows_per_second,
            seconds_left: scan.seconds_left(),
        }
    }
}

/// What there is to say of a job that should run.
fn ongoing(row: &JobRow, facts: &JobFacts) -> Option<String> {
    let waits_for = facts.waits_for.as_ref();
    let waits_for = waits_for.map(|what| format!("waits for {what}"));
    let trouble = facts.last_error.clone().or(waits_for);
    let replaced = row.definition.replaces.as_ref();
    let task = replaced.filter(|_| facts.is_to_replace);
    let task = task.map(|replaced| format!("is to replace job {replaced}"));
    let said: Vec<String> = task.into_iter().chain(trouble).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

fn state(row: &JobRow, facts: &JobFacts) -> JobState {
    if row.canceled {
        return JobState::Canceled;
    }
    if row.failed {
        return JobState::Failed;
    }
    if !facts.runs {
        return match row.progress {
            InitProgress::New => JobState::Waiting,
            _ => JobState::Stopped,
        };
    }
    if facts.last_error.is_some() {
        return JobState::Interrupted;
    }
    match facts.record.as_ref().map(|record| record.phase) {
        Some(Phase::Interrupted) => JobState::Interrupted,
        // A scan that the row says is finished.
        Some(Phase::Backfilling) if row.progress == InitProgress::Finished => JobState::Streaming,
        Some(Phase::Backfilling) => JobState::Backfilling,
        Some(Phase::Streaming) => JobState::Streaming,
        Some(Phase::Starting) => JobState::Starting,
        // A jobs table without the column `stats`.
        None => match row.progress {
            InitProgress::New => JobState::Starting,
            InitProgress::Finished => JobState::Streaming,
            InitProgress::Started | InitProgress::StartedAgain => JobState::Backfilling,
        },
    }
}

fn percent(row: &JobRow, scan: Option<Scan>) -> u8 {
    match row.progress {
        InitProgress::Finished => 100,
        _ => scan.map_or(0, |scan| scan.percent()),
    }
}
