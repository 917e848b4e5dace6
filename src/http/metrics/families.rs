//! The metrics: their names, what they mean, and where their values come from. `docs/monitoring.md` lists the same.

use crate::status::JobStatus;
use crate::status::board::Snapshot;
use crate::status::job_status::{JobState, ScanStatus};
use crate::status::lag::WalStatus;
use crate::status::record::{Coverage, DeviceRecord, Totals};

/// The labels of a sample, by name.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Metrics of one name. `R` says how the samples are read.
pub(super) struct Family<R> {
    /// Without the `_total` of counters.
    pub name: &'static str,
    pub help: &'static str,
    pub is_counter: bool,
    pub samples: R,
}

/// Samples of the daemon: of the snapshot, and of the time when it was published.
type OfDaemon = fn(&Snapshot, f64) -> Vec<(Labels, f64)>;
/// Samples of a job, with their labels.
type OfJob = fn(&JobStatus) -> Vec<(Labels, f64)>;
/// The one value of a job, if there is one.
type ValueOfJob = fn(&JobStatus) -> Option<f64>;

const fn gauge<R>(name: &'static str, help: &'static str, samples: R) -> Family<R> {
    let is_counter = false;
    Family {
        name,
        help,
        is_counter,
        samples,
    }
}

const fn counter<R>(name: &'static str, help: &'static str, samples: R) -> Family<R> {
    let is_counter = true;
    Family {
        name,
        help,
        is_counter,
        samples,
    }
}

/// A sample without labels.
fn one(value: f64) -> Vec<(Labels, f64)> {
    vec![(Labels::new(), value)]
}

/// The labels that every metric of a job has.
pub(super) fn names(job: &JobStatus) -> Labels {
    vec![("job_id", job.id.clone()), ("table", job.table.clone())]
}

/// Those and more.
fn names_and(job: &JobStatus, more: impl IntoIterator<Item = (&'static str, String)>) -> Labels {
    names(job).into_iter().chain(more).collect()
}

/// The metrics of the daemon.
pub(super) const DAEMON: &[Family<OfDaemon>] = &[
    gauge(
        "lantern_build_info",
        "The version of the daemon; always 1",
        |of, _| vec![(vec![("version", of.daemon.name.version.clone())], 1.0)],
    ),
    gauge(
        "lantern_uptime_seconds",
        "How long the daemon has run",
        |of, _| one(of.daemon.uptime_seconds),
    ),
    gauge(
        "lantern_status_timestamp_seconds",
        "When the daemon took these figures, in seconds since 1970-01-01 UTC; it stands still if the daemon hangs",
        |_, published| one(published),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory of the daemon",
        |of, _| {
            of.daemon
                .memory_bytes
                .map_or(Vec::new(), |bytes| one(bytes as f64))
        },
    ),
    gauge(
        "lantern_jobs_database_up",
        "1 if the jobs database answers, otherwise 0",
        |of, _| one(f64::from(of.daemon.jobs_database_error.is_none())),
    ),
    gauge(
        "lantern_running_jobs",
        "Jobs that run in this daemon",
        |of, _| one(of.daemon.running_jobs as f64),
    ),
    gauge(
        "lantern_inference_threads",
        "Threads that compute vectors",
        |of, _| one(of.daemon.inference_threads as f64),
    ),
    gauge(
        "lantern_inference_share_ratio",
        "The share of the time of these threads that inference may use now; below 1 while it yields",
        |of, _| one(of.daemon.inference_share),
    ),
    counter(
        "lantern_texts",
        "Texts that got a vector, of all jobs",
        |of, _| one(of.daemon.texts as f64),
    ),
    counter(
        "lantern_computed_texts",
        "Vectors that the model computed for them",
        |of, _| one(of.daemon.computed_texts as f64),
    ),
];

/// What a job is.
pub(super) const JOB_INFO: Family<OfJob> = gauge(
    "lantern_job_info",
    "What the job is, in its labels; always 1",
    |job| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let more = [
            ("source", text(&job.source)),
            ("destination", text(&job.destination)),
            ("model", text(&job.model)),
            ("provider", text(&job.provider)),
        ];
        let passages = job.chunk_table.clone().map(|name| ("chunk_table", name));
        vec![(names_and(job, more.into_iter().chain(passages)), 1.0)]
    },
);

/// What it does.
pub(super) const JOB_STATE: Family<OfJob> = gauge(
    "lantern_job_state",
    "1 for the state that the job is in, and 0 for each other one",
    |job| {
        let sample = |state: JobState| {
            let labels = names_and(job, [("state", state.name().to_owned())]);
            (labels, f64::from(state == job.state))
        };
        JobState::ALL.into_iter().map(sample).collect()
    },
);

/// Which devices of its model compute.
pub(super) const JOB_DEVICE_UP: Family<OfJob> = gauge(
    "lantern_job_device_up",
    "1 if the device runs the job's model, and 0 while it is lost; for each device but processors",
    |job| {
        let sample = |device: &DeviceRecord| {
            let labels = names_and(job, [("device", device.device.clone())]);
            (labels, f64::from(device.lost_since.is_none()))
        };
        job.devices.iter().map(sample).collect()
    },
);

/// What the server makes of its slot.
pub(super) const JOB_WAL_STATUS: Family<OfJob> = gauge(
    "lantern_job_wal_status",
    "1 for the wal_status of the job's replication slot, and 0 for each other one",
    |job| {
        let Some(slot) = job.slot.as_ref().filter(|_| runs(job)) else {
            return Vec::new();
        };
        let sample = |status: WalStatus| {
            let labels = names_and(job, [("wal_status", status.name().to_owned())]);
            (labels, f64::from(status == slot.wal_status))
        };
        WalStatus::ALL.into_iter().map(sample).collect()
    },
);

/// The other metrics of a job. Those of a stream are there while the job runs: a job that no daemon runs has old
/// figures.
pub(super) const JOB: &[Family<ValueOfJob>] = &[
    gauge(
        "lantern_job_lag_seconds",
        "The age of the oldest change that has no vector yet; 0 if there is none",
        |job| job.lag_seconds.filter(|_| runs(job)),
    ),
    gauge(
        "lantern_job_lag_bytes",
        "WAL that the job has yet to work off",
        |job| {
            job.lag_bytes
                .filter(|_| runs(job))
                .map(|bytes| bytes as f64)
        },
    ),
    gauge(
        "lantern_job_retained_wal_bytes",
        "WAL that the server may not remove because of the job's replication slot",
        |job| {
            let slot = job.slot.as_ref().filter(|_| runs(job))?;
            Some(slot.retained_bytes as f64)
        },
    ),
    gauge(
        "lantern_job_backfill_ratio",
        "How much of the initial backfill is done, from 0 to 1",
        |job| Some(f64::from(job.backfill_percent) / 100.0),
    ),
    gauge(
        "lantern_job_scan_rows",
        "Rows of the scan of existing rows that is under way, as counted at its start",
        |job| scan(job, |scan| scan.rows_total),
    ),
    gauge(
        "lantern_job_scan_finished_rows",
        "Rows of this scan that are finished",
        |job| scan(job, |scan| scan.rows_done),
    ),
    gauge(
        "lantern_job_quarantined_rows",
        "Rows of the job in the failures table",
        |job| job.quarantined_rows.map(|rows| rows as f64),
    ),
    gauge(
        "lantern_job_rows_with_text",
        "Rows with a text, looked at each minute; of a large table estimated from some pages",
        |job| coverage(job, |known| Some(known.rows_with_text)),
    ),
    gauge(
        "lantern_job_rows_with_vector",
        "Those of them that have a vector, or passages",
        |job| coverage(job, |known| Some(known.rows_with_vector)),
    ),
    gauge(
        "lantern_job_passages",
        "Passages in the chunk table of the job, looked at with them",
        |job| coverage(job, |known| known.passages),
    ),
    counter(
        "lantern_job_rows_written",
        "Rows whose vector was written or cleared, or documents whose passages were",
        |job| total(job, |totals| totals.rows_written),
    ),
    counter(
        "lantern_job_passages_written",
        "Passages that were written",
        |job| match job.chunk_table {
            Some(_) => total(job, |totals| totals.passages_written),
            None => None,
        },
    ),
    counter(
        "lantern_job_rows_superseded",
        "Rows that were gone or changed again before their vector was written",
        |job| total(job, |totals| totals.rows_superseded),
    ),
    counter(
        "lantern_job_rows_quarantined",
        "Rows that were put into the failures table",
        |job| total(job, |totals| totals.rows_quarantined),
    ),
    counter("lantern_job_texts", "Texts that got a vector", |job| {
        total(job, |totals| totals.texts)
    }),
    counter(
        "lantern_job_cache_hits",
        "Texts whose vector was known, or computed for an equal text at the same time",
        |job| total(job, |totals| totals.cache_hits),
    ),
    counter(
        "lantern_job_texts_truncated",
        "Texts that were longer than the model's window, of which the rest was not read",
        |job| total(job, |totals| totals.texts_truncated),
    ),
    counter("lantern_job_tokens", "Tokens that the model read", |job| {
        total(job, |totals| totals.tokens)
    }),
    counter(
        "lantern_job_batches",
        "Batches that the model ran with texts of the job",
        |job| total(job, |totals| totals.batches),
    ),
    counter(
        "lantern_job_requests",
        "Requests to the servers of the model with texts of the job, those that failed too",
        |job| total(job, |totals| totals.requests),
    ),
    counter(
        "lantern_job_inference_seconds",
        "The job's share of the time of inference, of one thread",
        |job| amount(job, |totals| totals.inference_seconds),
    ),
    counter(
        "lantern_job_estimated_cost",
        "What the tokens cost at the model's server, in the currency of price_per_million",
        |job| amount(job, |totals| totals.estimated_cost),
    ),
    counter(
        "lantern_job_write_backs",
        "Transactions that wrote vectors",
        |job| total(job, |totals| totals.write_backs),
    ),
    counter(
        "lantern_job_write_back_seconds",
        "The time that these transactions took",
        |job| amount(job, |totals| totals.write_back_seconds),
    ),
];

/// Whether a daemon runs the job now: this one, since those of others were left out before.
fn runs(job: &JobStatus) -> bool {
    job.daemon.is_some()
}

fn scan(job: &JobStatus, rows: fn(&ScanStatus) -> u64) -> Option<f64> {
    job.scan.as_ref().map(|scan| rows(scan) as f64)
}

fn coverage(job: &JobStatus, rows: fn(&Coverage) -> Option<u64>) -> Option<f64> {
    let coverage = job.coverage.as_ref().filter(|_| runs(job))?;
    Some(rows(coverage)? as f64)
}

fn total(job: &JobStatus, count: fn(&Totals) -> u64) -> Option<f64> {
    let totals = job.totals.as_ref().filter(|_| runs(job));
    totals.map(|totals| count(totals) as f64)
}

fn amount(job: &JobStatus, amount: fn(&Totals) -> f64) -> Option<f64> {
    job.totals.as_ref().filter(|_| runs(job)).map(amount)
}
