//! The columns by which the database tells how jobs are: `stats`, which a daemon writes for all of its jobs at once, and
//! what stands beside it for people.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::definition::JobId;
use super::store::JobStore;
use crate::postgres::DatabaseError;
use crate::postgres::quote::identifier;

/// The longest text of a column that is read, in characters.
const MAX_REMARK: usize = 4000;

/// What a row says of its job besides its definition.
#[derive(Debug, Clone, Default)]
pub struct JobRemarks {
    /// What its daemon has recorded, as JSON.
    pub stats: Option<String>,
    /// Why the job is interrupted.
    pub last_error: Option<String>,
    /// What delays its start.
    pub waits_for: Option<String>,
    /// What became of the index of the job.
    pub index_state: Option<String>,
    /// Start and end of the initial backfill, and when the job failed, as text.
    pub times: [Option<String>; 3],
}

impl JobStore {
    /// Whether the jobs table has the column `stats`.
    pub fn records_stats(&self) -> bool {
        self.table().stats_type().is_some()
    }

    /// Writes what is known of these jobs, each as JSON, in one statement. Nothing else of their rows changes.
    ///
    /// # Errors
    /// The server's.
    pub async fn write_stats(&self, stats: &[(JobId, String)]) -> Result<(), DatabaseError> {
        let Some(kind) = self.table().stats_type() else {
            return Ok(());
        };
        let (ids, values): (Vec<&str>, Vec<&str>) = stats
            .iter()
            .map(|(id, value)| (id.as_str(), value.as_str()))
            .unzip();
        let statement = format!(
            "UPDATE {} AS j SET stats = s.value::{kind} \
             FROM unnest($1::text[], $2::text[]) AS s (id, value) WHERE j.id::text = s.id",
            self.table().qualified()
        );
        let failed = || DatabaseError::during("writing stats to the jobs table");
        let update = self.session().repeated(&statement).await;
        let update = update.map_err(failed())?;
        let written = self.session().execute(&update, &[&ids, &values]).await;
        written.map_err(failed())?;
        Ok(())
    }

    /// What the rows say, by id; of jobs with several rows, of one of them.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_remarks(&self) -> Result<Vec<(JobId, JobRemarks)>, DatabaseError> {
        self.read_remarks("j.id IS NOT NULL", &[]).await
    }

    /// What the row of a job says.
    ///
    /// # Errors
    /// The server's.
    pub async fn remarks_on(&self, id: &JobId) -> Result<JobRemarks, DatabaseError> {
        let found = self
            .read_remarks("j.id::text = $1", &[&id.as_str()])
            .await?;
        Ok(found
            .into_iter()
            .next()
            .map(|(_, remarks)| remarks)
            .unwrap_or_default())
    }

    async fn read_remarks(
        &self,
        condition: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<(JobId, JobRemarks)>, DatabaseError> {
        let column = |name: &str| match self.table().may_read(name) {
            true => format!("left(j.{}::text, {MAX_REMARK})", identifier(name)),
            false => "NULL::text".to_owned(),
        };
        let stats = match self.records_stats() && self.table().may_read("stats") {
            true => "CASE WHEN pg_column_size(j.stats) < 65536 THEN j.stats::text END",
            false => "NULL::text",
        };
        let statement = format!(
            "SELECT left(j.id::text, 1024), {stats}, {}, {}, {}, {}, {}, {} FROM {} j WHERE {condition}",
            column("last_error"),
            column("waits_for"),
            column("index_state"),
            column("init_started_at"),
            column("init_finished_at"),
            column("init_failed_at"),
            self.table().qualified()
        );
        let rows = self.session().query(&statement, values).await;
        let remarks = rows.and_then(|rows| rows.iter().map(remarks).collect());
        remarks.map_err(DatabaseError::during("reading the jobs table"))
    }
}

fn remarks(row: &Row) -> Result<(JobId, JobRemarks), tokio_postgres::Error> {
    let id: String = row.try_get(0)?;
    let remarks = JobRemarks {
        stats: row.try_get(1)?,
        last_error: row.try_get(2)?,
        waits_for: row.try_get(3)?,
        index_state: row.try_get(4)?,
        times: [row.try_get(5)?, row.try_get(6)?, row.try_get(7)?],
    };
    Ok((JobId::new(id), remarks))
}
