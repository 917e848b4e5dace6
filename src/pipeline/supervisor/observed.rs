//! What is remembered for watchers: of each running job, and of what was published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::jobs::definition::JobRow;
use crate::jobs::definition::{Definition, JobId};
use crate::jobs::failures_summary::FailuresSummary;
use crate::jobs::reporter::Report;
use crate::replication::{Lsn, SlotName};
use crate::status::job_status::JobFacts;
use crate::status::rates::{Rate, Today};
use crate::status::record::{DaemonName, JobRecord, Phase, Scan, SlotRecord};
use crate::status::{JobCounters, StatusBoard};

/// What is observed of a running job.
pub(super) struct ObservedJob {
    pub counters: Arc<JobCounters>,
    /// The key of its lock.
    lock_key: i64,
    /// The slot that it reads.
    slot: SlotName,
    rate: Rate,
    scan_rate: Rate,
    /// Rows of today. `None` until it is known what an earlier daemon has counted.
    today: Option<Today>,
    /// Rows that are counted in it.
    counted: u64,
    /// What computes its vectors, where that is not this process.
    provider: Option<String>,
    last_error: Option<String>,
    waits_for: Option<String>,
    index_state: Option<String>,
    /// What the jobs table has.
    recorded: Option<JobRecord>,
}

/// What the supervisor remembers of what it has published.
pub(super) struct Observation {
    pub board: StatusBoard,
    pub daemon: DaemonName,
    pub started: Instant,
    pub published: Option<Instant>,
    pub recorded: Option<Instant>,
    pub failures: FailuresSummary,
    /// The rows of the jobs table, as last read.
    pub rows: Arc<[JobRow]>,
    /// What the jobs table says of the jobs besides, as last read.
    pub recorded_facts: BTreeMap<JobId, JobFacts>,
    /// Why the jobs database does not answer.
    pub jobs_database_error: Option<String>,
}

impl Observation {
    /// Nothing so far.
    pub fn new(board: StatusBoard) -> Self {
        Observation {
            board,
            daemon: DaemonName::of_this_process(),
            started: Instant::now(),
            published: None,
            recorded: None,
            failures: FailuresSummary::default(),
            recorded_facts: BTreeMap::new(),
            rows: Arc::default(),
            jobs_database_error: None,
        }
    }
}

/// When a record is made, and by which daemon.
pub(super) struct Moment<'a> {
    pub now: Instant,
    pub clock: SystemTime,
    pub daemon: &'a DaemonName,
    /// What computes the vectors.
    pub provider: &'a str,
}

impl<'a> Moment<'a> {
    /// This moment.
    pub fn now(daemon: &'a DaemonName, provider: &'a str) -> Self {
        Moment {
            now: Instant::now(),
            clock: SystemTime::now(),
            daemon,
            provider,
        }
    }
}

impl ObservedJob {
    /// A job of this definition that has just started, whose lock has this key, and which reads this slot.
    pub fn new(
        lock_key: i64,
        slot: SlotName,
        counters: Arc<JobCounters>,
        definition: &Definition,
    ) -> Self {
        ObservedJob {
            counters,
            provider: definition.remote_runtime().map(str::to_owned),
            lock_key,
            slot,
            rate: Rate::default(),
            scan_rate: Rate::default(),
            today: None,
            counted: 0,
            last_error: None,
            waits_for: None,
            index_state: None,
            recorded: None,
        }
    }

    /// The job has reported something.
    pub fn note(&mut self, report: &Report) {
        match report {
            Report::Interrupted(why) => self.last_error.clone_from(why),
            Report::WaitsFor(what) => self.waits_for.clone_from(what),
            Report::Started | Report::StartedAgain => self.waits_for = None,
            Report::IndexState(state) => self.index_state.clone_from(state),
            _ => {}
        }
    }

    /// Whether it is unknown what an earlier daemon has counted today.
    pub fn is_new(&self) -> bool {
        self.today.is_none()
    }

    /// An earlier daemon has left this record, or none.
    pub fn continue_from(&mut self, record: Option<JobRecord>) {
        self.today = Some(record.map(|record| record.today).unwrap_or_default());
    }

    /// The record of this moment.
    pub fn record(&mut self, moment: &Moment<'_>, quarantined_rows: u64) -> JobRecord {
        let totals = self.counters.totals();
        let today = self.count_today(moment.clock, totals.rows_written);
        let since_epoch = moment.clock.duration_since(UNIX_EPOCH);
        let lag = self.counters.lag.get();
        JobRecord {
            daemon: moment.daemon.clone(),
            written_at: since_epoch.unwrap_or_default().as_secs_f64(),
            lock_key: self.lock_key,
            phase: self.counters.phase(),
            provider: self
                .provider
                .clone()
                .or_else(|| self.counters.provider())
                .unwrap_or_else(|| moment.provider.to_owned()),
            servers: self.counters.servers(),
            devices: self.counters.devices(),
            rows_per_second: self.rate.take(moment.now, totals.rows_written),
            today,
            scan: self.scan(moment.now),
            lag_seconds: lag.age(moment.clock),
            slot: lag.slot.map(|slot| SlotRecord {
                name: self.slot.to_string(),
                wal_status: slot.wal_status,
                retained_bytes: slot.retained_bytes,
                lag_bytes: slot.unconfirmed_bytes,
                confirmed_lsn: Lsn(slot.confirmed).to_string(),
            }),
            coverage: self.counters.coverage(),
            quarantined_rows,
            totals,
        }
    }

    /// Rows of today. Until it is known what an earlier daemon has counted, all of this daemon's are counted each time.
    fn count_today(&mut self, clock: SystemTime, rows_written: u64) -> Today {
        let mut today = self.today.unwrap_or_default();
        today.add(clock, rows_written - self.counted);
        if self.today.is_some() {
            self.today = Some(today);
            self.counted = rows_written;
        }
        today
    }

    fn scan(&mut self, now: Instant) -> Option<Scan> {
        let counters = &self.counters;
        if counters.phase() != Phase::Backfilling {
            self.scan_rate = Rate::default();
            return None;
        }
        let rows_done = counters.scanned_rows.get();
        Some(Scan {
            rows_done,
            rows_total: counters.rows_to_scan.get(),
            rows_per_second: self.scan_rate.take(now, rows_done),
        })
    }

    /// What is known of the job besides its row.
    pub fn facts(&self, record: JobRecord) -> JobFacts {
        JobFacts {
            last_error: self.last_error.clone(),
            waits_for: self.waits_for.clone(),
            index_state: self.index_state.clone(),
            record: Some(record),
            runs: true,
            ..JobFacts::default()
        }
    }

    /// Whether the job does something else than the jobs table says.
    pub fn has_moved_on(&self) -> bool {
        let recorded = self.recorded.as_ref().map(|recorded| recorded.phase);
        recorded.is_some_and(|recorded| recorded != self.counters.phase())
    }

    /// Whether this record says anything that the jobs table does not have yet.
    pub fn is_news(&self, record: &JobRecord) -> bool {
        !self
            .recorded
            .as_ref()
            .is_some_and(|recorded| recorded.says_the_same(record))
    }

    /// The jobs table has this record.
    pub fn note_recorded(&mut self, record: JobRecord) {
        self.recorded = Some(record);
    }
}
