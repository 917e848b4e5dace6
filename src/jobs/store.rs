//! Reads the rows of the jobs table, and records in them what became of the jobs.

use super::definition::{Definition, InitProgress, JobId, JobRow, OPTIONS};
use super::table::JobsTable;
use crate::postgres::quote::{identifier, literal};
use crate::postgres::{DatabaseError, Session};

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
        let select = select_statement(&table, label.is_some());
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
    /// The server's.
    pub async fn rows(&self) -> Result<Vec<JobRow>, DatabaseError> {
        let failed = || DatabaseError::during("reading the jobs table");
        let question = self
            .session
            .repeated(&self.select)
            .await
            .map_err(failed())?;
        let rows = match &self.label {
            Some(label) => self.session.query(&question, &[label]).await,
            None => self.session.query(&question, &[]).await,
        };
        let rows = rows.map_err(failed())?;
        Ok(rows.iter().map(job_row).collect())
    }

    /// All rows, whatever their label.
    ///
    /// # Errors
    /// The server's.
    pub async fn all_rows(&self) -> Result<Vec<JobRow>, DatabaseError> {
        let rows = self
            .session
            .query(&select_statement(&self.table, false), &[])
            .await
            .map_err(DatabaseError::during("reading the jobs table"))?;
        Ok(rows.iter().map(job_row).collect())
    }

    /// One row, or `None` if there is none.
    ///
    /// # Errors
    /// The server's.
    pub async fn row(&self, id: &JobId) -> Result<Option<JobRow>, DatabaseError> {
        Ok(self.rows().await?.into_iter().find(|row| row.id == *id))
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
        let statement = format!(
            "SELECT init_failure_reason::text, to_jsonb(j) ->> 'init_progress' FROM {} j WHERE id::text = $1",
            self.table.qualified()
        );
        let row = self.session.query_opt(&statement, &[&id.as_str()]).await;
        let row = row.map_err(DatabaseError::during("reading the jobs table"))?;
        Ok(row.map_or((None, None), |row| (row.get(0), row.get(1))))
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

    /// Assigns `value` to the columns for interruptions, as far as the table has them.
    fn last_error(&self, value: &str) -> String {
        if !self.table.has("last_error") {
            return String::new();
        }
        let mut set = format!("last_error = {value}");
        if self.table.has("last_error_at") {
            set.push_str(&format!(
                ", last_error_at = CASE WHEN {value} IS NOT NULL THEN now() END"
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

/// The columns that every jobs table has are named. Those of [`OPTIONS`] are taken out of the row as JSON: that works
/// whether the table has the column or not, and an option takes effect as soon as its column is added. Rows come in the
/// order of their ids as text, which is the output column of that name: `id` may have a type without an order.
fn select_statement(table: &JobsTable, labeled: bool) -> String {
    let mut columns = vec![
        "id::text".to_owned(),
        "COALESCE(NULLIF(schema::text, ''), 'public') AS schema".to_owned(),
        "init_started_at IS NOT NULL AS started".to_owned(),
        "init_finished_at IS NOT NULL AS finished".to_owned(),
        // The fraction of a second, where there is one, follows a point in JSON, whatever type the column has.
        "CASE WHEN init_finished_at IS NULL THEN strpos(COALESCE(to_jsonb(j) ->> 'init_started_at', '.'), '.') = 0 \
         ELSE COALESCE(init_started_at > init_finished_at, false) END AS started_again"
            .to_owned(),
        "init_failed_at IS NOT NULL AS failed".to_owned(),
        "init_failure_reason::text AS failure_reason".to_owned(),
        format!("{} AS canceled", table.canceled_expression()),
    ];
    for column in [
        "db_connection",
        "table",
        "src_column",
        "dst_column",
        "embedding_model",
    ] {
        let column = identifier(column);
        columns.push(format!("j.{column}::text AS {column}"));
    }
    for (column, sql_type) in OPTIONS {
        columns.push(format!(
            "(to_jsonb(j) ->> {})::{sql_type} AS {}",
            literal(column),
            identifier(column)
        ));
    }
    let condition = if labeled { " WHERE label = $1" } else { "" };
    format!(
        "SELECT {} FROM {} j{condition} ORDER BY id",
        columns.join(", "),
        table.qualified()
    )
}

fn job_row(row: &tokio_postgres::Row) -> JobRow {
    let text = |column: &str| {
        row.get::<_, Option<String>>(column)
            .filter(|value| !value.is_empty())
    };
    let flag = |column: &str| row.get::<_, Option<bool>>(column);
    JobRow {
        id: JobId::new(row.get::<_, String>("id")),
        definition: Definition {
            db_connection: text("db_connection").unwrap_or_default(),
            schema: text("schema").unwrap_or_default(),
            table: text("table"),
            src_column: text("src_column"),
            dst_column: text("dst_column"),
            embedding_model: text("embedding_model"),
            column_type: text("column_type"),
            pk: text("pk"),
            batch_size: row.get("batch_size"),
            runtime: text("runtime"),
            runtime_params: text("runtime_params"),
            fingerprint_column: text("fingerprint_column"),
            trust_existing: flag("trust_existing").unwrap_or(false),
            backfill: flag("backfill").unwrap_or(true),
            skip_triggers: flag("skip_triggers").unwrap_or(false),
        },
        progress: progress(row),
        failed: row.get("failed"),
        failure_reason: text("failure_reason"),
        canceled: row.get("canceled"),
    }
}

fn progress(row: &tokio_postgres::Row) -> InitProgress {
    let is = |column: &str| row.get::<_, bool>(column);
    match (is("started"), is("finished"), is("started_again")) {
        (false, _, _) => InitProgress::New,
        (true, _, true) => InitProgress::StartedAgain,
        (true, false, false) => InitProgress::Started,
        (true, true, false) => InitProgress::Finished,
    }
}
