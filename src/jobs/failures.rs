//! The failures table: rows that a job could not embed or write, put aside so that the others go on.
//!
//! It stands beside the jobs table, is called `<jobs table>_failures`, and is created when the first row is put aside.

use serde_json::Value;
use tokio_postgres::error::SqlState;

use super::definition::JobId;
use super::store::JobStore;
use crate::postgres::DatabaseError;

/// A row that was put aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The key columns by name, each as text: `{"id": "17"}`.
    pub key: Value,
    /// Why, for a person.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
}

/// Columns of the failures table; `job_id` is the id of the jobs table as text, of whatever type that is.
const COLUMNS: &str = "job_id text NOT NULL, key jsonb NOT NULL, error text NOT NULL, attempts int NOT NULL, \
                       failed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (job_id, key)";

impl JobStore {
    /// Puts a row aside; one that is there already counts one more round of attempts.
    ///
    /// # Errors
    /// The server's. One that is not transient means that the table cannot be created or is not what it should be.
    pub async fn put_aside(&self, id: &JobId, failure: &Failure) -> Result<(), DatabaseError> {
        let table = self.table().failures();
        let statement = format!(
            "INSERT INTO {table} AS f (job_id, key, error, attempts) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job_id, key) DO UPDATE \
             SET error = EXCLUDED.error, attempts = f.attempts + EXCLUDED.attempts, failed_at = now()"
        );
        // The server stores no NUL in text.
        let error = failure.error.replace('\0', "\u{fffd}");
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&id.as_str(), &failure.key, &error, &failure.attempts];
        if !self.has_failures().await? {
            let create = format!("CREATE TABLE IF NOT EXISTS {table} ({COLUMNS})");
            // Another daemon may be creating it at this moment; then the insertion tells how that went.
            if let Err(error) = self.session().batch_execute(&create).await
                && error.code() != Some(&SqlState::UNIQUE_VIOLATION)
            {
                return Err(DatabaseError::during(format!("creating {table}"))(error));
            }
        }
        let put = self.session().execute(&statement, &parameters).await;
        put.map_err(DatabaseError::during(format!("writing to {table}")))?;
        Ok(())
    }

    /// The rows of a job that are put aside, the newest failure first.
    pub async fn failures(&self, id: &JobId) -> Result<Vec<Failure>, DatabaseError> {
        let table = self.table().failures();
        let statement = format!(
            "SELECT key, error, attempts FROM {table} WHERE job_id = $1 ORDER BY failed_at DESC"
        );
        if !self.has_failures().await? {
            return Ok(Vec::new());
        }
        let rows = self.session().query(&statement, &[&id.as_str()]).await;
        let rows = rows.map_err(DatabaseError::during(format!("reading {table}")))?;
        Ok(rows
            .iter()
            .map(|row| Failure {
                key: row.get(0),
                error: row.get(1),
                attempts: row.get(2),
            })
            .collect())
    }

    /// Takes rows back, or with `None` all rows of the job: they are done, gone, or the job is.
    pub async fn take_back(&self, id: &JobId, keys: Option<&[Value]>) -> Result<(), DatabaseError> {
        let table = self.table().failures();
        let statement = format!(
            "DELETE FROM {table} WHERE job_id = $1 AND ($2::jsonb[] IS NULL OR key = ANY ($2))"
        );
        if !self.has_failures().await? {
            return Ok(());
        }
        self.session()
            .execute(&statement, &[&id.as_str(), &keys])
            .await
            .map_err(DatabaseError::during(format!("writing to {table}")))?;
        Ok(())
    }

    /// Takes back what belongs to jobs that have no row any more: they were deleted while no daemon ran.
    pub async fn take_back_of_deleted_jobs(&self) -> Result<(), DatabaseError> {
        let failures = self.table().failures();
        if !self.has_failures().await? {
            return Ok(());
        }
        let statement = format!(
            "DELETE FROM {failures} f WHERE NOT EXISTS (SELECT FROM {} j WHERE j.id::text = f.job_id)",
            self.table().qualified()
        );
        self.session()
            .execute(&statement, &[])
            .await
            .map_err(DatabaseError::during(format!("writing to {failures}")))?;
        Ok(())
    }

    /// Asked beforehand: a statement that fails for want of the table would stand in the server's log.
    async fn has_failures(&self) -> Result<bool, DatabaseError> {
        let table = self.table().failures();
        let row = self
            .session()
            .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
            .await
            .map_err(DatabaseError::during(format!("looking for {table}")))?;
        Ok(row.get(0))
    }
}
