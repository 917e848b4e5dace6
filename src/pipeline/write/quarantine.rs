//! Rows that cannot be embedded or written are recorded in the failures table, so that the stream goes on past them.
//!
//! ```text
//! add ─▶ recording ─▶ next_recorded: now the row is finished, and its position may be confirmed
//!                          │
//!        release ◀── a later change of the row, or retry-failed, could be written
//! ```
//!
//! The order matters: if a row's position were confirmed before its failure is recorded, a crash in between would lose
//! it. In the other direction nothing can be lost, so a release is only told and not waited for.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::jobs::failures::Failure;
use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row};
use crate::pipeline::table::target::TargetTable;

/// The most rows of a job that may be quarantined. What refuses more refuses every row, and is for a person to fix.
pub const MAX_QUARANTINED_ROWS: usize = 1000;

/// The quarantined rows of one job.
pub struct Quarantine {
    reporter: Reporter,
    target: Arc<TargetTable>,
    keys: HashSet<Key>,
    /// Keys of rows that were quarantined until now, for the next report.
    released: Vec<Value>,
    /// Reports that the jobs database has not answered yet. Dropping the set aborts them.
    reports: JoinSet<Answered>,
}

/// A report that was answered.
enum Answered {
    /// The row is recorded, or the reason why it cannot be.
    Recorded(Row, Result<(), String>),
    Released,
}

impl Quarantine {
    /// Reads which rows are quarantined already. Waits while the jobs database cannot be reached.
    pub async fn open(reporter: Reporter, target: Arc<TargetTable>) -> Quarantine {
        let failures = reporter.failures().await;
        let keys = failures
            .iter()
            .filter_map(|failure| target.key_from_json(&failure.key))
            .collect();
        Quarantine {
            reporter,
            target,
            keys,
            released: Vec::new(),
            reports: JoinSet::new(),
        }
    }

    /// Begins to quarantine a row for the reason `error`, after `attempts` attempts to write it.
    /// [`next_recorded`](Self::next_recorded) returns it when that is done.
    ///
    /// # Errors
    /// Permanent, where so many rows are quarantined that it cannot be their own fault.
    pub fn add(&mut self, row: Row, error: String, attempts: u32) -> Result<(), JobError> {
        let table = self.target.qualified();
        if !self.keys.contains(&row.key) && self.keys.len() >= MAX_QUARANTINED_ROWS {
            return Err(too_many(&table, &error, self.reporter.has_row()));
        }
        match self.reporter.has_row() {
            true => tracing::warn!("quarantined the row {} of {table}: {error}", row.key),
            false => tracing::warn!("left out the row {} of {table}: {error}", row.key),
        }
        self.keys.insert(row.key.clone());
        let failure = Failure {
            key: self.target.key_to_json(&row.key),
            error,
            attempts: attempts.try_into().unwrap_or(i32::MAX),
        };
        let reporter = self.reporter.clone();
        self.reports
            .spawn(async move { Answered::Recorded(row, reporter.quarantine(failure).await) });
        Ok(())
    }

    /// A row was written or is gone: if it was quarantined, it no longer is.
    pub fn release(&mut self, key: &Key) {
        if !self.keys.is_empty() && self.keys.remove(key) {
            self.released.push(self.target.key_to_json(key));
        }
    }

    /// The next row whose failure is recorded. Waits for ever while there is none. Cancellation safe.
    ///
    /// # Errors
    /// Permanent, where the failures table cannot be written: then the row is as bad as any other error.
    pub async fn next_recorded(&mut self) -> Result<Row, JobError> {
        self.report_released();
        loop {
            match self.reports.join_next().await {
                Some(Ok(Answered::Released)) => {}
                Some(Ok(Answered::Recorded(row, Ok(())))) => return Ok(row),
                Some(Ok(Answered::Recorded(row, Err(error)))) => {
                    return Err(JobError::permanent(format!(
                        "the row {} of {} cannot be written, and the failures table cannot record it: {error}",
                        row.key,
                        self.target.qualified()
                    )));
                }
                Some(Err(error)) => return Err(error.into()),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until every report is answered, for an orderly end.
    pub async fn flush(&mut self) {
        self.report_released();
        while self.reports.join_next().await.is_some() {}
    }

    fn report_released(&mut self) {
        if self.released.is_empty() {
            return;
        }
        let (reporter, keys) = (self.reporter.clone(), std::mem::take(&mut self.released));
        self.reports.spawn(async move {
            reporter.release(keys).await;
            Answered::Released
        });
    }
}

/// The error where so many rows are refused that each one may be.
fn too_many(table: &str, error: &str, has_failures_table: bool) -> JobError {
    let remedy = match has_failures_table {
        true => {
            "those that were recorded until now are in the failures table. Fix the cause, then set init_failed_at to \
             NULL and run: lantern-cli retry-failed"
        }
        false => "fix the cause, then run the same command again",
    };
    JobError::permanent(format!(
        "{MAX_QUARANTINED_ROWS} rows of {table} could not be embedded or written, and now another one, because of: \
         {error}; {remedy}"
    ))
}
