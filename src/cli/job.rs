//! What the commands about one job share: the arguments that name it, and the job with everything that it works on.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use crate::cli::job_access::JobAccessArguments;
use crate::cli::progress::{DOCUMENTS, Progress, ROWS, Unit};
use crate::cli::{job_state, output, replaced_job, stderr};
use crate::embedding::{Engine, Model};
use crate::jobs::{JobId, JobRow, JobStore, JobsTable};
use crate::pipeline::backfill::scan::BackfillProgress;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::changeover::stage;
use crate::pipeline::commands::possible_keys::possible_keys;
use crate::pipeline::commands::repair::Repair;
use crate::pipeline::commands::row_work::Rows;
use crate::pipeline::commands::verify::Vectors;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::setup::preflight::users_code::{PowerfulRoles, check_exposure};
use crate::pipeline::setup::{model, target_database, target_table};
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::plural::form;
use crate::postgres::{ConnectionString, Session};

/// Names one job, and where it may connect.
#[derive(Args)]
pub struct JobArguments {
    /// The jobs database, as for start-daemon
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: String,

    /// The jobs table
    #[arg(
        long = "jobs-table",
        visible_alias = "table",
        env = "LANTERN_JOBS_TABLE",
        default_value = "jobs",
        value_name = "NAME"
    )]
    table: String,

    /// The schema of the jobs table
    #[arg(
        long = "jobs-schema",
        visible_alias = "schema",
        env = "LANTERN_JOBS_SCHEMA",
        default_value = "public",
        value_name = "NAME"
    )]
    schema: String,

    /// The job's id
    #[arg(long, value_name = "ID")]
    job: String,

    /// The target database, in place of the job's db_connection: for roles that may not read it, or have a login of
    /// their own there
    #[arg(
        long,
        env = "LANTERN_TARGET",
        hide_env_values = true,
        value_name = "URI"
    )]
    target: Option<String>,

    #[command(flatten)]
    pub access: JobAccessArguments,
}

/// A job with everything that it works on.
pub struct OpenJob {
    /// Its row in the jobs table.
    pub row: JobRow,
    /// The jobs table.
    pub store: Arc<JobStore>,
    /// Its model, loaded.
    pub model: Model,
    /// The server of the target database that `session` has reached.
    pub database: ConnectionString,
    /// A session to the target database.
    pub session: Session,
    /// The target table.
    pub target: Arc<TargetTable>,
    /// The number of its destination, which another column may replace while the command runs.
    pub number: i16,
}

impl JobArguments {
    /// Finds the job, loads its model and reads its table from the catalog. Changes nothing.
    ///
    /// # Errors
    /// Where something of it is missing, or where the job may not use its host (`--allow-host`).
    pub async fn open(&self, engine: &Engine) -> anyhow::Result<OpenJob> {
        let (store, mut row) = self.find_row().await?;
        job_state::warn(&store, &row).await?;
        let session = self.open_target(&store, &row).await?;
        if let Some(successor) = replaced_job::just_now(&store, &session, &row).await? {
            row = successor;
        }
        let names = TargetNames::from_definition(&row.definition)?;
        let place = replaced_job::place(&store, &session, names, &row).await?;
        // Where db_connection names several servers, everything else goes to the one that answered.
        let database = session.server().clone();
        let model = model::load(engine, &place.names, &self.access.access()).await?;
        let target = target_table::existing(&session, &place.names, &model).await?;
        let number =
            stage::number(&session, target.written().oid, &target.destination.name).await?;
        row.definition = place.definition;
        Ok(OpenJob {
            number: number.unwrap_or_default(),
            row,
            store: Arc::new(store),
            model,
            database,
            session,
            target: Arc::new(target),
        })
    }

    /// Finds the job, without its model and its table; or the one that has replaced it.
    ///
    /// # Errors
    /// The jobs table cannot be used, or has no such job.
    pub async fn find_row(&self) -> anyhow::Result<(JobStore, JobRow)> {
        let (store, row) = self.find_named_row().await?;
        let row = replaced_job::follow(&store, row).await?;
        Ok((store, row))
    }

    /// Finds the job that is named.
    ///
    /// # Errors
    /// As [`find_row`](Self::find_row).
    pub async fn find_named_row(&self) -> anyhow::Result<(JobStore, JobRow)> {
        let jobs = ConnectionString::from_operator(&self.uri).context("--uri")?;
        let session = Session::open(&jobs).await?;
        let table = JobsTable::discover_readable(&session, &self.schema, &self.table).await?;
        let store = JobStore::new(session, table, None);
        let row = find(&store, &self.job).await?;
        Ok((store, row))
    }

    /// A session to the target database, as the role that reads and writes rows.
    ///
    /// # Errors
    /// The job may not connect there, or cannot.
    pub async fn open_target(&self, store: &JobStore, row: &JobRow) -> anyhow::Result<Session> {
        Ok(Session::open(&self.target(store, row)?).await?)
    }

    /// Where the rows of the job are, for the role that reads and writes them.
    fn target(&self, store: &JobStore, row: &JobRow) -> anyhow::Result<ConnectionString> {
        if let Some(target) = &self.target {
            return ConnectionString::of_operator(target).context("--target");
        }
        if !store.table().may_read_connections() || row.definition.db_connection.is_empty() {
            bail!(
                "{} shows no db_connection of job {} to this role: name the target database yourself, with --target",
                store.table().qualified(),
                row.id
            );
        }
        let access = self.access.access();
        Ok(match target_database::of_rows(&row.definition, &access)? {
            Some(database) => database,
            None => target_database::from_definition(&row.definition, &access)?,
        })
    }
}

/// The job with this id.
///
/// # Errors
/// There is none, or the table has several; and the server's.
pub async fn find(store: &JobStore, id: &str) -> anyhow::Result<JobRow> {
    let mut found = store.rows_with_id(&JobId::new(id)).await?;
    let table = store.table().qualified();
    if found.len() > 1 {
        bail!(
            "{} rows of {table} have the id {id}: the table needs a primary key",
            found.len()
        );
    }
    if let Some(job) = found.pop() {
        return Ok(job);
    }
    let rows = store.rows().await?.rows;
    let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
    bail!(
        "there is no job {id} in {table}; it has {}",
        if ids.is_empty() {
            "none".into()
        } else {
            ids.join(", ")
        }
    )
}

impl OpenJob {
    /// Whether the destination is still the column that it was when the job was opened. Within a transaction that has read
    /// it, the answer holds to the end.
    pub async fn has_its_column(&self) -> anyhow::Result<bool> {
        let name = &self.target.destination.name;
        let number = stage::number(&self.session, self.target.written().oid, name).await?;
        Ok(number == Some(self.number))
    }

    /// Embeds and writes these rows, and shows how far it is. Returns how many there were.
    pub async fn repair(&self, engine: &Engine, rows: Rows, doing: &str) -> anyhow::Result<u64> {
        let mut progress = Progress::new(doing, self.unit());
        let repair = Repair {
            row: self.row.clone(),
            store: self.store.clone(),
            database: self.database.clone(),
            target: self.target.clone(),
            number: self.number,
            model: self.model.clone(),
        };
        let report = |now: BackfillProgress| {
            progress.set_total(now.total);
            progress.set(now.done);
        };
        let rows = repair.run(engine, rows, report).await?;
        progress.finish();
        Ok(rows)
    }

    /// What the job embeds: rows, or documents.
    fn unit(&self) -> Unit {
        match self.target.passages {
            Some(_) => DOCUMENTS,
            None => ROWS,
        }
    }

    /// A number of what the job embeds: `1 row`, `3 documents`.
    pub fn counted(&self, number: u64) -> String {
        let noun = match self.target.passages {
            Some(_) => form(number, "document", "documents"),
            None => form(number, "row", "rows"),
        };
        format!("{number} {noun}")
    }

    /// Says, or fails, where others could gain rights through the role that writes.
    pub async fn check_exposure(&self, powerful: PowerfulRoles) -> anyhow::Result<()> {
        let table = self.target.written().qualified();
        if let Some(exposure) = check_exposure(&self.session, &table, powerful).await? {
            stderr::line(&format!("warning: {exposure}"));
        }
        Ok(())
    }

    /// The keys of quarantined rows. Those that no row can have any more, because the key columns are others or their
    /// types have no such value, leave the failures table.
    pub async fn quarantined_keys(&self) -> anyhow::Result<Vec<Key>> {
        let failures = self.store.failures(&self.row.id).await?;
        let (mut keys, mut dead) = (Vec::new(), Vec::new());
        for failure in failures {
            match self.target.key_from_json(&failure.key) {
                Some(key) => keys.push(key),
                None => dead.push(failure.key),
            }
        }
        let (keys, impossible) = possible_keys(&self.session, &self.target, keys).await?;
        dead.extend(impossible.iter().map(|key| self.target.key_to_json(key)));
        if !dead.is_empty() {
            self.store.release(&self.row.id, Some(&dead)).await?;
            let shown: Vec<String> = dead.iter().take(3).map(ToString::to_string).collect();
            output::line(format_args!(
                "{} {} left the failures table, because no row of the table can have such a key any more ({}{}); \
                 lantern-cli resync embeds what has another key now",
                dead.len(),
                form(dead.len(), "row has", "rows have"),
                shown.join(", "),
                if dead.len() > shown.len() {
                    ", …"
                } else {
                    ""
                }
            ))?;
        }
        Ok(keys)
    }

    /// Fails where rows of the job are quarantined: the exit status of a command must show that not all is well.
    pub async fn none_quarantined(&self) -> anyhow::Result<()> {
        let failures = self.store.failures(&self.row.id).await?;
        let Some(newest) = failures.first() else {
            return Ok(());
        };
        bail!(
            "{} {} could not be embedded or written; see {}. The last one, {}: {}",
            failures.len(),
            form(failures.len(), "row", "rows"),
            self.store.table().failures(),
            newest.key,
            newest.error
        )
    }

    /// The vectors of the job, to be looked at.
    pub fn vectors<'a>(&'a self, engine: &'a Engine) -> Vectors<'a> {
        Vectors {
            session: &self.session,
            target: &self.target,
            engine,
            model: &self.model,
            resync: BackfillScope::for_resync(&self.row.definition, &self.target),
        }
    }

    /// One line that names the job, for the head of a report.
    pub fn title(&self) -> String {
        format!(
            "job {}: {} with {}",
            self.row.id,
            self.row.definition,
            self.model.name()
        )
    }
}
