//! Rows that cannot be embedded or written are put aside: noted in the failures table, so that everything else goes on.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::jobs::failures::Failure;
use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row};
use crate::pipeline::table::target::TargetTable;

/// So many rows of a job may be aside. What refuses more than that refuses every row, and is for a person to mend.
pub const MOST_ROWS: usize = 1000;

/// The rows of one job that are aside, and the way there.
pub struct Quarantine {
    reporter: Reporter,
    target: Arc<TargetTable>,
    keys: HashSet<Key>,
    /// Quarantine until a moment ago.
    done: Vec<Value>,
    /// What the jobs database is being told.
    under_way: JoinSet<Told>,
}

enum Told {
    /// The row is finished once this is so.
    Quarantine(Row, Result<(), String>),
    TakenBack,
}

impl Quarantine {
    /// Reads which rows are aside from earlier on. Waits while the jobs database is away.
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
            done: Vec::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Begins to put a row aside; [`next`](Self::next) returns it when that is done.
    ///
    /// # Errors
    /// When so many are aside already that it cannot be the rows' fault.
    pub fn put(&mut self, row: Row, error: String, attempts: u32) -> Result<(), JobError> {
        let table = self.target.qualified();
        if !self.keys.contains(&row.key) && self.keys.len() >= MOST_ROWS {
            return Err(JobError::permanent(format!(
                "{MOST_ROWS} rows of {table} are in the failures table, the last one for: {error}; mend what refuses them, then set \
                 init_failed_at to NULL and run: lantern-cli retry-failed"
            )));
        }
        tracing::warn!("the row {} of {table} is put aside: {error}", row.key);
        self.keys.insert(row.key.clone());
        let failure = Failure {
            key: self.target.key_to_json(&row.key),
            error,
            attempts: attempts.try_into().unwrap_or(i32::MAX),
        };
        let reporter = self.reporter.clone();
        self.under_way
            .spawn(async move { Told::Quarantine(row, reporter.quarantine(failure).await) });
        Ok(())
    }

    /// The next row that is safely noted. Pends for ever while there is none. Cancellation safe.
    ///
    /// # Errors
    /// When the failures table cannot be written; then the job stops as if there were none.
    pub async fn next(&mut self) -> Result<Row, JobError> {
        self.take_back();
        loop {
            match self.under_way.join_next().await {
                Some(Ok(Told::TakenBack)) => {}
                Some(Ok(Told::Quarantine(row, Ok(())))) => return Ok(row),
                Some(Ok(Told::Quarantine(row, Err(error)))) => {
                    return Err(JobError::permanent(format!(
                        "the row {} of {} is refused, and cannot be put aside: {error}",
                        row.key,
                        self.target.qualified()
                    )));
                }
                Some(Err(error)) => {
                    return Err(JobError::Transient(format!("a task ended early: {error}")));
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until all is told, for an orderly end.
    pub async fn settle(&mut self) {
        self.take_back();
        while self.under_way.join_next().await.is_some() {}
    }

    fn take_back(&mut self) {
        if self.done.is_empty() {
            return;
        }
        let (reporter, done) = (self.reporter.clone(), std::mem::take(&mut self.done));
        self.under_way.spawn(async move {
            reporter.release(done).await;
            Told::TakenBack
        });
    }

    /// A row is done or gone: if it was aside, it is no longer.
    pub fn done(&mut self, key: &Key) {
        if !self.keys.is_empty() && self.keys.remove(key) {
            self.done.push(self.target.key_to_json(key));
        }
    }
}
