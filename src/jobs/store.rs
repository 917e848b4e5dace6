//! Reading the rows of the jobs table and writing down what became of them.

use super::definition::{Definition, JobId, JobRow, Progress};
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

    /// For a daemon whose jobs share slots.
    pub fn sharing_slots(self, shares_slots: bool) -> Self {
        JobStore {
            shares_slots,
            ..self
        }
    }

    pub(super) fn shares_slots(&self) -> bool {
        self.shares_slots
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn table(&self) -> &JobsTable {
        &self.table
    }

    pub(super) fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// All rows that are this daemon's (with `--label`: those with that label), cancelled ones too.
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

    /// As [`rows`](Self::rows), with those that are another daemon's by their label.
    pub async fn all_rows(&self) -> Result<Vec<JobRow>, DatabaseError> {
        let rows = self
            .session
            .query(&select_statement(&self.table, false), &[])
            .await
            .map_err(DatabaseError::during("reading the jobs table"))?;
        Ok(rows.iter().map(job_row).collect())
    }

    /// One row, or `None` where there is none.
    pub async fn row(&self, id: &JobId) -> Result<Option<JobRow>, DatabaseError> {
        Ok(self.rows().await?.into_iter().find(|row| row.id == *id))
    }

    /// The job has passed its checks and begins: sets `init_started_at` where it is null, and takes back an earlier failure.
    pub async fn started(&self, id: &JobId) -> Result<(), DatabaseError> {
        let set = "init_started_at = COALESCE(init_started_at, now()), init_failed_at = NULL, init_failure_reason = NULL";
        self.update(id, set, &[]).await?;
        self.waits_for(id, None).await
    }

    /// Everything is to be done again; see [`Progress::StartedAgain`].
    pub async fn started_again(&self, id: &JobId) -> Result<(), DatabaseError> {
        let set = "init_finished_at = COALESCE(init_finished_at, init_started_at, now()), \
                   init_started_at = clock_timestamp() + interval '1 microsecond'";
        self.update(id, set, &[]).await
    }

    pub async fn finished(&self, id: &JobId) -> Result<(), DatabaseError> {
        let mut set = String::from(
            "init_finished_at = GREATEST(clock_timestamp(), init_started_at), init_failed_at = NULL, init_failure_reason = NULL",
        );
        if self.table.has("init_progress") {
            set.push_str(", init_progress = 100");
        }
        self.update(id, &set, &[]).await
    }

    /// Percent of the first run, where the table has the column.
    pub async fn progressed(&self, id: &JobId, percent: u8) -> Result<(), DatabaseError> {
        if !self.table.has("init_progress") {
            return Ok(());
        }
        self.update(id, &format!("init_progress = {percent}"), &[])
            .await
    }

    /// What holds up the start of the job, where the table has the column.
    pub async fn waits_for(&self, id: &JobId, what: Option<&str>) -> Result<(), DatabaseError> {
        if !self.table.has("waits_for") {
            return Ok(());
        }
        self.update(id, "waits_for = $2", &[&what]).await
    }

    /// The job cannot go on; a person has to read the reason.
    pub async fn failed(&self, id: &JobId, reason: &str) -> Result<(), DatabaseError> {
        // The server stores no NUL in text.
        let reason = reason.replace('\0', "\u{fffd}");
        self.update(
            id,
            "init_failed_at = now(), init_failure_reason = $2",
            &[&reason],
        )
        .await
    }

    async fn update(
        &self,
        id: &JobId,
        set: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<(), DatabaseError> {
        let touched = if self.table.has("updated_at") {
            ", updated_at = now()"
        } else {
            ""
        };
        let statement = format!(
            "UPDATE {} SET {set}{touched} WHERE id::text = $1",
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

/// Optional columns are looked for in the row as JSON, so that they count from the moment that somebody adds them.
fn select_statement(table: &JobsTable, labelled: bool) -> String {
    let text = |column: &str| format!("j.{}::text", identifier(column));
    let optional = |column: &str| format!("to_jsonb(j) ->> {}", literal(column));
    let condition = if labelled { " WHERE label = $1" } else { "" };
    format!(
        "SELECT id::text, db_connection::text, COALESCE(NULLIF({schema}, ''), 'public'), {table_name}, {src}, {dst}, {model}, \
                {column_type}, {pk}, ({batch_size})::bigint, {runtime}, {runtime_params}, \
                init_started_at IS NOT NULL, init_finished_at IS NOT NULL, COALESCE(init_started_at > init_finished_at, false), \
                init_failed_at IS NOT NULL, {canceled}, {fingerprint}, COALESCE(({trust})::bool, false), \
                COALESCE(({backfill})::bool, true), COALESCE(({skip_triggers})::bool, false) \
         FROM {qualified} j{condition} ORDER BY id",
        schema = text("schema"),
        table_name = text("table"),
        src = text("src_column"),
        dst = text("dst_column"),
        model = text("embedding_model"),
        column_type = optional("column_type"),
        pk = optional("pk"),
        batch_size = optional("batch_size"),
        runtime = optional("runtime"),
        runtime_params = optional("runtime_params"),
        canceled = table.canceled_expression(),
        fingerprint = optional("fingerprint_column"),
        trust = optional("trust_existing"),
        backfill = optional("backfill"),
        skip_triggers = optional("skip_triggers"),
        qualified = table.qualified(),
    )
}

fn job_row(row: &tokio_postgres::Row) -> JobRow {
    let text = |index: usize| {
        row.get::<_, Option<String>>(index)
            .filter(|value| !value.is_empty())
    };
    let progress = match (
        row.get::<_, bool>(12),
        row.get::<_, bool>(13),
        row.get::<_, bool>(14),
    ) {
        (false, _, _) => Progress::New,
        (true, false, _) => Progress::Started,
        (true, true, false) => Progress::Finished,
        (true, true, true) => Progress::StartedAgain,
    };
    JobRow {
        id: JobId::new(row.get::<_, String>(0)),
        definition: Definition {
            db_connection: text(1).unwrap_or_default(),
            schema: text(2).unwrap_or_default(),
            table: text(3),
            src_column: text(4),
            dst_column: text(5),
            embedding_model: text(6),
            column_type: text(7),
            pk: text(8),
            batch_size: row.get(9),
            runtime: text(10),
            runtime_params: text(11),
            fingerprint_column: text(17),
            trust_existing: row.get(18),
            backfill: row.get(19),
            skip_triggers: row.get(20),
        },
        progress,
        failed: row.get(15),
        canceled: row.get(16),
    }
}
