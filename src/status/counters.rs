//! What a running job counts, and what it does.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::lag::StreamLag;
use super::record::{Coverage, DeviceRecord, Phase, ServerRecord, Totals};
use crate::embedding::FlowCounters;

/// A number that only grows. Its readers need no order between several of them.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is replaced.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Replaces the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a job has done since this daemon started it, through all of its attempts.
#[derive(Debug, Default)]
pub struct JobCounters {
    /// Rows whose vector was written or cleared.
    pub rows_written: Counter,
    /// Passages that were written, of jobs with a table of passages.
    pub passages_written: Counter,
    /// Rows that were gone, held another text, or changed again before their vector was written.
    pub rows_superseded: Counter,
    /// Rows that were quarantined.
    pub rows_quarantined: Counter,
    /// Texts that were longer than the model's window.
    pub texts_truncated: Counter,
    /// Write-backs, and the time that they took.
    pub write_backs: Counter,
    /// The time of all write-backs, in microseconds.
    pub write_back_micros: Counter,
    /// Existing rows that the current scan has finished.
    pub scanned_rows: Gauge,
    /// Existing rows that the current scan has to finish in all.
    pub rows_to_scan: Gauge,
    /// Texts, tokens and the time of inference.
    pub embedding: Arc<FlowCounters>,
    /// How far the stream is behind.
    pub lag: Arc<StreamLag>,
    phase: PhaseCell,
    coverage: Mutex<Option<Coverage>>,
    servers: Mutex<Vec<ServerRecord>>,
    devices: Mutex<Vec<DeviceRecord>>,
    provider: Mutex<Option<String>>,
}

/// The [`Phase`] of a job, by its number.
#[derive(Debug, Default)]
struct PhaseCell(AtomicU8);

impl JobCounters {
    /// None so far, of a job whose stream has this lag.
    pub fn new(lag: Arc<StreamLag>) -> Self {
        JobCounters {
            lag,
            ..JobCounters::default()
        }
    }

    /// What the job does from now on.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.0.store(phase as u8, Ordering::Relaxed);
    }

    /// What the job does now.
    pub fn phase(&self) -> Phase {
        let number = self.phase.0.load(Ordering::Relaxed);
        let is_it = |phase: &Phase| *phase as u8 == number;
        Phase::ALL
            .into_iter()
            .find(is_it)
            .unwrap_or(Phase::Starting)
    }

    /// How many rows have a vector, as last seen.
    pub fn set_coverage(&self, coverage: Option<Coverage>) {
        *self.coverage.lock().unwrap_or_else(PoisonError::into_inner) = coverage;
    }

    /// How many rows have a vector, as last seen.
    pub fn coverage(&self) -> Option<Coverage> {
        *self.coverage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers of the model, as last seen.
    pub fn set_servers(&self, servers: Vec<ServerRecord>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    /// The servers of the model, as last seen.
    pub fn servers(&self) -> Vec<ServerRecord> {
        let servers = self.servers.lock();
        servers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The devices of the model, as last seen.
    pub fn set_devices(&self, devices: Vec<DeviceRecord>) {
        *self.devices.lock().unwrap_or_else(PoisonError::into_inner) = devices;
    }

    /// The devices of the model, as last seen.
    pub fn devices(&self) -> Vec<DeviceRecord> {
        let devices = self.devices.lock();
        devices.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What computes the vectors, from now on.
    pub fn set_provider(&self, provider: Option<String>) {
        *self.provider.lock().unwrap_or_else(PoisonError::into_inner) = provider;
    }

    /// What computes the vectors, once the model is loaded in this process.
    pub fn provider(&self) -> Option<String> {
        let provider = self.provider.lock();
        provider.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        let embedding = self.embedding.totals();
        Totals {
            rows_written: self.rows_written.get(),
            passages_written: self.passages_written.get(),
            rows_superseded: self.rows_superseded.get(),
            rows_quarantined: self.rows_quarantined.get(),
            texts: embedding.texts,
            cache_hits: embedding.cache_hits,
            texts_truncated: self.texts_truncated.get(),
            tokens: embedding.tokens,
            batches: embedding.batches,
            requests: embedding.requests,
            inference_seconds: embedding.inference.as_secs_f64(),
            estimated_cost: embedding.cost,
            write_backs: self.write_backs.get(),
            write_back_seconds: Duration::from_micros(self.write_back_micros.get()).as_secs_f64(),
        }
    }

    /// Counts a write-back that took this long.
    pub fn note_write_back(&self, elapsed: Duration) {
        self.write_backs.add(1);
        self.write_back_micros.add(elapsed.as_micros() as u64);
    }

    /// A scan has finished `done` of `total` rows.
    pub fn note_scan(&self, done: u64, total: u64) {
        self.scanned_rows.set(done);
        self.rows_to_scan.set(total);
    }
}
