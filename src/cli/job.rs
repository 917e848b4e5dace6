//! What every subcommand needs that is about one job: where its row is, and what it works on.

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use crate::embedding::{Engine, Model, ModelName};
use crate::jobs::{JobId, JobRow, JobStore, JobsTable};
use crate::pipeline::backfill::Progress;
use crate::pipeline::preflight;
use crate::pipeline::repair::{Repair, Rows};
use crate::pipeline::target::TargetTable;
use crate::postgres::{ConnectionString, Session};

/// Names one job.
#[derive(Args)]
pub struct JobArguments {
    /// The jobs database, as for start-daemon
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    uri: String,

    /// The jobs table
    #[arg(long, default_value = "jobs")]
    table: String,

    /// The schema of the jobs table
    #[arg(long, default_value = "public")]
    schema: String,

    /// The job's id
    #[arg(long, value_name = "ID")]
    job: String,
}

/// A job with everything that it works on, all of it there.
pub struct OpenJob {
    pub row: JobRow,
    pub store: Arc<JobStore>,
    pub model: Model,
    pub database: ConnectionString,
    /// A session to the target database.
    pub session: Session,
    pub target: Arc<TargetTable>,
}

impl JobArguments {
    /// Finds the job, loads its model and looks its table up.
    pub async fn open(&self, engine: &Engine) -> anyhow::Result<OpenJob> {
        let jobs = ConnectionString::from_operator(&self.uri).context("--uri")?;
        let session = Session::open(&jobs).await?;
        let table = JobsTable::discover(&session, &self.schema, &self.table, None).await?;
        let store = JobStore::new(session, table, None);
        let row = self.find(&store).await?;
        let names = preflight::names(&row.definition)?;
        let database: ConnectionString = row
            .definition
            .db_connection
            .parse()
            .context("db_connection of the job")?;
        let session = Session::open(&database).await?;
        let model = engine.model(&names.model.parse::<ModelName>()?).await?;
        let target = preflight::existing_table(&session, &names, &model).await?;
        Ok(OpenJob {
            row,
            store: Arc::new(store),
            model,
            database,
            session,
            target: Arc::new(target),
        })
    }

    async fn find(&self, store: &JobStore) -> anyhow::Result<JobRow> {
        if let Some(job) = store.row(&JobId::new(self.job.as_str())).await? {
            return Ok(job);
        }
        let ids: Vec<String> = store
            .rows()
            .await?
            .iter()
            .map(|row| row.id.to_string())
            .collect();
        bail!(
            "there is no job {} in {}; it has {}",
            self.job,
            store.table().qualified(),
            if ids.is_empty() {
                "none".into()
            } else {
                ids.join(", ")
            }
        )
    }
}

impl OpenJob {
    /// Embeds and writes these rows; returns how many they were.
    pub async fn repair(
        &self,
        engine: &Engine,
        rows: Rows,
        report: impl FnMut(Progress),
    ) -> anyhow::Result<u64> {
        let repair = Repair {
            id: self.row.id.clone(),
            store: self.store.clone(),
            database: self.database.clone(),
            target: self.target.clone(),
            model: self.model.clone(),
        };
        Ok(repair.run(engine, rows, report).await?)
    }

    /// An error where rows of the job are aside.
    pub async fn none_aside(&self) -> anyhow::Result<()> {
        let failures = self.store.failures(&self.row.id).await?;
        let Some(newest) = failures.first() else {
            return Ok(());
        };
        bail!(
            "{} rows are aside, see {}; the row {}: {}",
            failures.len(),
            self.store.table().failures(),
            newest.key,
            newest.error
        )
    }

    /// One line that says what the job is, for the head of a report.
    pub fn title(&self) -> String {
        format!(
            "job {}: {} with {}",
            self.row.id,
            self.row.definition,
            self.model.name()
        )
    }
}
