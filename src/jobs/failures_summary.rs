//! The failures table at a glance: how many rows each job has in it, and the newest of them.

use std::collections::BTreeMap;

use super::definition::JobId;
use super::failures::FailuresError;
use super::store::JobStore;
use crate::postgres::DatabaseError;
use crate::postgres::answer::all;

/// The longest key and error that are read, in characters.
const MAX_TEXT: usize = 500;

/// The rows of the failures table, in short.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FailuresSummary {
    /// How many rows each job has; none for a job that is not in it.
    pub counts: BTreeMap<JobId, u64>,
    /// The newest rows of all jobs, the newest first.
    pub newest: Vec<FailureRow>,
    /// When the newest of all failed, as text.
    newest_at: Option<String>,
}

/// A row of the failures table, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureRow {
    /// The job.
    pub job: JobId,
    /// The row's key, as JSON, cut to 500 characters.
    pub key: String,
    /// Why it could not be embedded or written, cut likewise.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When, as text.
    pub failed_at: String,
}

impl FailuresSummary {
    /// Rows of this job.
    pub fn count(&self, job: &JobId) -> u64 {
        self.counts.get(job).copied().unwrap_or(0)
    }
}

impl JobStore {
    /// Brings the summary up to date. The rows themselves, at most `max_rows`, are read only if there are others than at
    /// the last call.
    ///
    /// # Errors
    /// The server's, and that the failures table may not be used.
    pub async fn summarize_failures(
        &self,
        summary: &mut FailuresSummary,
        max_rows: i64,
    ) -> Result<(), FailuresError> {
        if !self.has_failures().await? {
            *summary = FailuresSummary::default();
            return Ok(());
        }
        let table = self.table().failures();
        let failed = || DatabaseError::during(format!("reading {table}"));
        let count =
            format!("SELECT job_id, count(*), max(failed_at)::text FROM {table} GROUP BY job_id");
        let count = self.session().repeated(&count).await.map_err(failed())?;
        let counts = self.session().query(&count, &[]).await;
        let counts: Vec<(String, i64, Option<String>)> =
            counts.and_then(|rows| all(&rows)).map_err(failed())?;
        let newest_at = counts.iter().filter_map(|(_, _, at)| at.clone()).max();
        let counts: BTreeMap<JobId, u64> = counts
            .into_iter()
            .map(|(job, count, _)| (JobId::new(job), count.unsigned_abs()))
            .collect();
        if counts == summary.counts && newest_at == summary.newest_at {
            return Ok(());
        }
        let newest = format!(
            "SELECT job_id, left(key::text, {MAX_TEXT}), left(error, {MAX_TEXT}), attempts, failed_at::text \
             FROM {table} ORDER BY failed_at DESC LIMIT $1"
        );
        let rows = self.session().query(&newest, &[&max_rows]).await;
        let rows: Vec<(String, String, String, i32, String)> =
            rows.and_then(|rows| all(&rows)).map_err(failed())?;
        let newest = rows
            .into_iter()
            .map(|(job, key, error, attempts, at)| FailureRow {
                job: JobId::new(job),
                key,
                error,
                attempts,
                failed_at: at,
            });
        *summary = FailuresSummary {
            counts,
            newest: newest.collect(),
            newest_at,
        };
        Ok(())
    }
}
