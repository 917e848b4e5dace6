//! The failures table: the quarantine of rows that a job could not embed or write, so that the job goes on without
//! them.
//!
//! It is beside the jobs table and is called `<jobs table>_failures`. `sql/jobs.sql` creates it; otherwise it is
//! created with the first quarantined row, if the role may do that.

use serde_json::Value;
use tokio_postgres::error::SqlState;

use super::definition::JobId;
use super::store::JobStore;
use super::trust::{self, Found};
use crate::postgres::DatabaseError;
use crate::postgres::quote::identifier;

/// A quarantined row.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The key columns by name, each as text: `{"id": "17"}`.
    pub key: Value,
    /// Why, for a person.
    pub error: String,
    /// How often the row was tried.
    pub attempts: i32,
}

/// Columns of the failures table; `job_id` is the id of the jobs table as text, of whatever type that is.
const COLUMNS: &str = "job_id text NOT NULL, key jsonb NOT NULL, error text NOT NULL, attempts int NOT NULL, \
                       failed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (job_id, key)";

/// The failures table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FailuresError {
    /// A statement failed.
    #[error("{cause}{}", ending(.remedy.as_deref()))]
    Database {
        /// The error of the jobs database.
        cause: DatabaseError,
        /// The statements of a role that has the privileges which this one lacks.
        remedy: Option<String>,
    },
    /// It is another object, or it may run code of a third party: why, and what to do.
    #[error("{0}")]
    Untrusted(String),
}

fn ending(remedy: Option<&str>) -> String {
    remedy.map_or_else(String::new, |remedy| {
        format!("; run as the owner of the jobs table: {remedy}")
    })
}

impl FailuresError {
    /// The error of the jobs database, if the same call may succeed later without a change by a person.
    ///
    /// # Errors
    /// The error itself, if not.
    pub fn into_transient(self) -> Result<DatabaseError, FailuresError> {
        match self {
            FailuresError::Database { cause, .. } if cause.is_transient() => Ok(cause),
            other => Err(other),
        }
    }

    fn is_about_privileges(&self) -> bool {
        matches!(self, FailuresError::Database { cause, .. }
            if cause.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE))
    }
}

impl From<DatabaseError> for FailuresError {
    fn from(cause: DatabaseError) -> Self {
        FailuresError::Database {
            cause,
            remedy: None,
        }
    }
}

impl JobStore {
    /// Records a row in the quarantine. For a row that is there already, the attempts add up.
    ///
    /// # Errors
    /// The server's. A permanent one means that the table cannot be created, or has other columns than it should.
    pub async fn quarantine(&self, id: &JobId, failure: &Failure) -> Result<(), FailuresError> {
        let table = self.table().failures();
        let statement = format!(
            "INSERT INTO {table} AS f (job_id, key, error, attempts) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (job_id, key) DO UPDATE \
             SET error = EXCLUDED.error, attempts = f.attempts + EXCLUDED.attempts, failed_at = now()"
        );
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] = [
            &id.as_str(),
            &failure.key,
            &failure.error,
            &failure.attempts,
        ];
        if !self.has_failures().await? {
            let create = format!("CREATE TABLE IF NOT EXISTS {table} ({COLUMNS})");
            // IF NOT EXISTS does not help against a daemon that creates the table at the same moment: one of the two
            // fails at a unique index of the catalog. The insertion then shows whether the table is there.
            if let Err(error) = self.session().batch_execute(&create).await
                && error.code() != Some(&SqlState::UNIQUE_VIOLATION)
            {
                let cause = DatabaseError::during(format!("creating {table}"))(error);
                return Err(self.with_remedy(cause, &format!("{create}; ")).await);
            }
            // Another role may have been faster, for reasons of its own.
            self.has_failures().await?;
        }
        let put = self.session().execute(&statement, &parameters).await;
        match put.map_err(DatabaseError::during(format!("writing to {table}"))) {
            Ok(_) => Ok(()),
            Err(cause) => Err(self.with_remedy(cause, "").await),
        }
    }

    /// The quarantined rows of a job, the newest failure first.
    ///
    /// # Errors
    /// The server's.
    pub async fn failures(&self, id: &JobId) -> Result<Vec<Failure>, FailuresError> {
        let table = self.table().failures();
        let statement = format!(
            "SELECT key, error, attempts FROM {table} WHERE job_id = $1 ORDER BY failed_at DESC"
        );
        if !self.has_failures().await? {
            return Ok(Vec::new());
        }
        let rows = self.session().query(&statement, &[&id.as_str()]).await;
        let rows = match rows.map_err(DatabaseError::during(format!("reading {table}"))) {
            Ok(rows) => rows,
            Err(cause) => return Err(self.with_remedy(cause, "").await),
        };
        let failures = rows.iter().map(failure).collect::<Result<_, _>>();
        Ok(failures.map_err(DatabaseError::during(format!("reading {table}")))?)
    }

    /// The number of quarantined rows of a job; `None` if the role may not read the failures table, or there is none
    /// beside a view.
    ///
    /// # Errors
    /// The server's.
    pub async fn count_failures(&self, id: &JobId) -> Result<Option<usize>, FailuresError> {
        match self.failures(id).await {
            Ok(failures) if failures.is_empty() && self.table().is_view() => {
                Ok(self.has_failures().await?.then_some(0))
            }
            Ok(failures) => Ok(Some(failures.len())),
            Err(error) if error.is_about_privileges() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Releases rows of a job from the quarantine, or with `None` all of them: they are written or deleted, or the job
    /// has ended.
    ///
    /// # Errors
    /// The server's.
    pub async fn release(&self, id: &JobId, keys: Option<&[Value]>) -> Result<(), FailuresError> {
        let table = self.table().failures();
        let statement = format!(
            "DELETE FROM {table} WHERE job_id = $1 AND ($2::jsonb[] IS NULL OR key = ANY ($2))"
        );
        if !self.has_failures().await? {
            return Ok(());
        }
        let deleted = self
            .session()
            .execute(&statement, &[&id.as_str(), &keys])
            .await;
        match deleted.map_err(DatabaseError::during(format!("writing to {table}"))) {
            Ok(_) => Ok(()),
            Err(cause) => Err(self.with_remedy(cause, "").await),
        }
    }

    /// Releases all rows of jobs that were deleted from the jobs table.
    ///
    /// # Errors
    /// The server's.
    pub async fn release_rows_of_deleted_jobs(&self) -> Result<(), FailuresError> {
        let failures = self.table().failures();
        if !self.has_failures().await? {
            return Ok(());
        }
        let statement = format!(
            "DELETE FROM {failures} f WHERE NOT EXISTS (SELECT FROM {} j WHERE j.id::text = f.job_id)",
            self.table().qualified()
        );
        let deleted = self.session().execute(&statement, &[]).await;
        match deleted.map_err(DatabaseError::during(format!("writing to {failures}"))) {
            Ok(_) => Ok(()),
            Err(cause) => Err(self.with_remedy(cause, "").await),
        }
    }

    /// Whether there is a failures table. Asked first, because a statement on a missing table would write an error into
    /// the server's log; and because the table may be another role's.
    pub(super) async fn has_failures(&self) -> Result<bool, FailuresError> {
        let (session, table) = (self.session(), self.table());
        match trust::look_at_failures(session, table.failures(), table.oid()).await? {
            Found::Missing => Ok(false),
            Found::Usable => Ok(true),
            Found::Unusable(why) => Err(FailuresError::Untrusted(why)),
        }
    }

    /// Adds to an error about missing privileges what grants them: `first`, and the privileges on the table.
    async fn with_remedy(&self, cause: DatabaseError, first: &str) -> FailuresError {
        if cause.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return cause.into();
        }
        let table = self.table().failures();
        let remedy = self.session().role().await.ok().map(|role| {
            format!(
                "{first}GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {};",
                identifier(&role)
            )
        });
        FailuresError::Database { cause, remedy }
    }
}

fn failure(row: &tokio_postgres::Row) -> Result<Failure, tokio_postgres::Error> {
    Ok(Failure {
        key: row.try_get(0)?,
        error: row.try_get(1)?,
        attempts: row.try_get(2)?,
    })
}
