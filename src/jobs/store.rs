//! Reads the rows of the jobs table, and records in them what became of the jobs.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::BorrowToSql;

use super::definition::{JobId, JobRow};
use super::rows::{job_row, select_statement};
use super::table::JobsTable;
use crate::postgres::answer::columns;
use crate::postgres::quote::literal;
use crate::postgres::{DatabaseError, Session};

/// The most that the rows of the jobs table may hold, in bytes: the daemon keeps them in memory, and reads them again at
/// each look. A usual row has some hundred bytes.
const MAX_TABLE: usize = 32 << 20;

const NO_PARAMETERS: [&str; 0] = [];

/// The rows of the jobs table.
#[derive(Default)]
pub struct JobRows {
    /// In the order of their ids. If the table has no key, several may have one id.
    pub rows: Vec<JobRow>,
    /// The number of further rows, which have no id, or one that is too long.
    pub nameless: usize,
}

/// The jobs table over one session.
pub struct JobStore {
    session: Session,
    table: JobsTable,
    label: Option<String>,
    shares_slots: bool,
    select: String,
}

impl JobStore {
    /// A store over this session. With a label, only rows that have it are read.
    pub fn new(session: Session, table: JobsTable, label: Option<String>) -> Self {
        let condition = match label {
            Some(_) => "WHERE j.label = $1",
            None => "",
        };
        let select = select_statement(&table, condition);
        JobStore {
            session,
            table,
            label,
            shares_slots: false,
            select,
        }
    }

    /// Sets whether the jobs of this daemon share slots (`--slots database`). Daemons of the two kinds do not share
    /// jobs.
    pub fn sharing_slots(self, shares_slots: bool) -> Self {
        JobStore {
            shares_slots,
            ..self
        }
    }

    pub(super) fn shares_slots(&self) -> bool {
        self.shares_slots
    }

    /// The session, which also holds the daemon's locks.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The table.
    pub fn table(&self) -> &JobsTable {
        &self.table
    }

    pub(super) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// All rows of this daemon (with a label: those that have it), canceled ones too.
    ///
    /// # Errors
    /// The server's, and [`DatabaseError::TooMuch`].
    pub async fn rows(&self) -> Result<JobRows, DatabaseError> {
        match &self.label {
            Some(label) => self.read(&self.select, [label]).await,
            None => self.read(&self.select, NO_PARAMETERS).await,
        }
    }

    /// All rows, whatever their label.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn all_rows(&self) -> Result<JobRows, DatabaseError> {
        let select = select_statement(&self.table, "");
        self.read(&select, NO_PARAMETERS).await
    }

    /// The rows with this id: one, or none, unless the table has no key.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub async fn rows_with_id(&self, id: &JobId) -> Result<Vec<JobRow>, DatabaseError> {
        let select = select_statement(&self.table, "WHERE j.id::text = $1");
        Ok(self.read(&select, [id.as_str()]).await?.rows)
    }

    pub(super) async fn read<P>(
        &self,
        select: &str,
        parameters: impl IntoIterator<Item = P, IntoIter: ExactSizeIterator>,
    ) -> Result<JobRows, DatabaseError>
    where
        P: BorrowToSql,
    {
        const DOING: &str = "reading the jobs table";
        let failed = || DatabaseError::during(DOING);
        let question = self.session.repeated(select).await.map_err(failed())?;
        let stream = self.session.query_raw(&question, parameters).await;
        let mut stream = pin!(stream.map_err(failed())?);
        let mut found = JobRows::default();
        let mut bytes = 0;
        while let Some(row) = stream.try_next().await.map_err(failed())? {
            bytes += row.raw_size_bytes();
            if bytes > MAX_TABLE {
                return Err(DatabaseError::TooMuch {
                    doing: DOING.to_owned(),
                    limit: MAX_TABLE,
                });
            }
            match job_row(&row).map_err(failed())? {
                Some(row) => found.rows.push(row),
                None => found.nameless += 1,
            }
        }
        Ok(found)
    }

    /// What the daemon has written about a job for people: why it has failed, and the percentage of its initial
    /// backfill if the table has the column.
    ///
    /// # Errors
    /// The server's.
    pub async fn remarks(
        &self,
        id: &JobId,
    ) -> Result<(Option<String>, Option<String>), DatabaseError> {
        let progress = match self.table.has("init_progress") {
            true => "init_progress::text",
            false => "NULL::text",
        };
        let statement = format!(
            "SELECT left(init_failure_reason::text, 4000), {progress} FROM {} WHERE id::text = $1 LIMIT 1",
            self.table.qualified()
        );
        let row = self.session.query_opt(&statement, &[&id.as_str()]).await;
        let remarks = row.and_then(|row| row.as_ref().map(columns).transpose());
        let remarks = remarks.map_err(DatabaseError::during("reading the jobs table"))?;
        Ok(remarks.unwrap_or_default())
    }

    /// The statement that starts a failed job again.
    pub fn restart_statement(&self, id: &JobId) -> String {
        let is_number = id.as_str().bytes().all(|byte| byte.is_ascii_digit());
        let shown = match is_number && !id.as_str().is_empty() {
            true => id.as_str().to_owned(),
            false => literal(id.as_str()),
        };
        format!(
            "UPDATE {} SET init_failed_at = NULL WHERE id = {shown};",
            self.table.qualified()
        )
    }

    /// The job has passed its checks and begins: sets `init_started_at` if it is null, and clears an earlier failure.
    ///
    /// # Errors
    /// The server's.
    pub async fn started(&self, id: &JobId) -> Result<(), DatabaseError> {
        let set = "init_started_at = COALESCE(init_started_at, now()), \
                   init_failed_at = NULL, init_failure_reason = NULL";
        self.update(id, set, &[]).await?;
        self.waits_for(id, None).await
    }

    /// Every row has to be embedded again; see [`InitProgress::StartedAgain`].
    ///
    /// # Errors
    /// The server's.
    pub async fn started_again(&self, id: &JobId) -> Result<(), DatabaseError> {
        let mut set = String::from(
            "init_started_at = CASE WHEN init_finished_at IS NULL THEN date_trunc('second', clock_timestamp()) \
             ELSE clock_timestamp() + interval '1 microsecond' END, \
             init_failed_at = NULL, init_failure_reason = NULL",
        );
        if self.table.has("init_progress") {
            set.push_str(", init_progress = 0");
        }
        self.update(id, &set, &[]).await?;
        self.waits_for(id, None).await
    }

    /// The initial backfill is finished.
    ///
    /// # Errors
    /// The server's.
    pub async fn finished(&self, id: &JobId) -> Result<(), DatabaseError> {
        let mut set = String::from(
            "init_finished_at = GREATEST(clock_timestamp(), init_started_at), \
             init_failed_at = NULL, init_failure_reason = NULL",
        );
        if self.table.has("init_progress") {
            set.push_str(", init_progress = 100");
        }
        self.update(id, &set, &[]).await
    }

    /// Records the percentage of the initial backfill, if the table has the column.
    ///
    /// # Errors
    /// The server's.
    pub async fn progressed(&self, id: &JobId, percent: u8) -> Result<(), DatabaseError> {
        if !self.table.has("init_progress") {
            return Ok(());
        }
        self.update(id, &format!("init_progress = {percent}"), &[])
            .await
    }

    /// Records what the start of the job waits for, if the table has the column.
    ///
    /// # Errors
    /// The server's.
    pub async fn waits_for(&self, id: &JobId, what: Option<&str>) -> Result<(), DatabaseError> {
        if !self.table.has("waits_for") {
            return Ok(());
        }
        self.update(id, "waits_for = $2", &[&what]).await
    }

    /// Records why the job is interrupted, or with `None` that it runs, if the table has the columns for it.
    ///
    /// # Errors
    /// The server's.
    pub async fn interrupted(&self, id: &JobId, why: Option<&str>) -> Result<(), DatabaseError> {
        let set = self.last_error(if why.is_some() {
            "$2::text"
        } else {
            "NULL::text"
        });
        if set.is_empty() {
            return Ok(());
        }
        match why {
            Some(why) => self.update(id, &set, &[&why]).await,
            // No row version for a job that was not interrupted.
            None => {
                self.update_where(id, &set, "AND last_error IS NOT NULL", &[])
                    .await
            }
        }
    }

    /// Records what has become of the job's index, if the table has the column.
    ///
    /// # Errors
    /// The server's.
    pub async fn index_state(&self, id: &JobId, state: Option<&str>) -> Result<(), DatabaseError> {
        if !self.table.has("index_state") {
            return Ok(());
        }
        // No row version where nothing changes, as at each start of a job without an index.
        let changed = "AND index_state IS DISTINCT FROM $2::text";
        self.update_where(id, "index_state = $2::text", changed, &[&state])
            .await
    }

    /// Assigns `value` to the columns for interruptions, as far as the table has them. The time is that of the first of
    /// several in a row.
    fn last_error(&self, value: &str) -> String {
        if !self.table.has("last_error") {
            return String::new();
        }
        let mut set = format!("last_error = {value}");
        if self.table.has("last_error_at") {
            set.push_str(&format!(
                ", last_error_at = CASE WHEN {value} IS NULL THEN NULL WHEN last_error IS NULL THEN now() \
                 ELSE COALESCE(last_error_at, now()) END"
            ));
        }
        set
    }

    /// The job has failed, for this reason.
    ///
    /// # Errors
    /// The server's.
    pub async fn failed(&self, id: &JobId, reason: &str) -> Result<(), DatabaseError> {
        let mut set = String::from("init_failed_at = now(), init_failure_reason = $2");
        // The reason replaces what interrupted the job until then.
        let cleared = self.last_error("NULL::text");
        if !cleared.is_empty() {
            set.push_str(&format!(", {cleared}"));
        }
        self.update(id, &set, &[&reason]).await
    }

    async fn update(
        &self,
        id: &JobId,
        set: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<(), DatabaseError> {
        self.update_where(id, set, "", values).await
    }

    /// `condition` is empty or begins with `AND`.
    async fn update_where(
        &self,
        id: &JobId,
        set: &str,
        condition: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<(), DatabaseError> {
        let touched = if self.table.has("updated_at") {
            ", updated_at = now()"
        } else {
            ""
        };
        let statement = format!(
            "UPDATE {} SET {set}{touched} WHERE id::text = $1 {condition}",
            self.table.qualified()
        );
        let id = id.as_str();
        let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&id];
        parameters.extend_from_slice(values);
        self.session
            .execute(&statement, &parameters)
            .await
            .map_err(DatabaseError::during("updating the jobs table"))?;
        Ok(())
    }
}
