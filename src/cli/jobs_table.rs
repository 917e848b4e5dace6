//! The arguments that name the jobs table where `--table` and `--schema` mean the target's: in `check` and `jobs`.

use anyhow::{Context, anyhow};
use clap::Args;

use crate::jobs::table::JobsTableError;
use crate::jobs::{JobStore, JobsTable};
use crate::postgres::{ConnectionString, Session};

/// Names the jobs table.
#[derive(Args)]
pub struct JobsTableArguments {
    /// The jobs database, as for start-daemon
    #[arg(long, env = "LANTERN_URI", hide_env_values = true, value_name = "URI")]
    pub uri: String,

    /// The jobs table
    #[arg(
        long,
        env = "LANTERN_JOBS_TABLE",
        default_value = "jobs",
        value_name = "NAME"
    )]
    pub jobs_table: String,

    /// The schema of the jobs table
    #[arg(
        long,
        env = "LANTERN_JOBS_SCHEMA",
        default_value = "public",
        value_name = "NAME"
    )]
    pub jobs_schema: String,
}

impl JobsTableArguments {
    /// The jobs database.
    ///
    /// # Errors
    /// `--uri` is not a connection string.
    pub fn database(&self) -> anyhow::Result<ConnectionString> {
        ConnectionString::from_operator(&self.uri).context("--uri")
    }

    /// The jobs table, for a role that may read it.
    ///
    /// # Errors
    /// There is no such table, or it cannot be read.
    pub async fn open(&self) -> anyhow::Result<JobStore> {
        let session = Session::open(&self.database()?.named("jobs command")).await?;
        let table = JobsTable::discover_readable(&session, &self.jobs_schema, &self.jobs_table);
        let table = table.await.map_err(|error| anyhow!(explain(&error)))?;
        Ok(JobStore::new(session, table, None))
    }
}

/// The error with the names that the options have here.
pub fn explain(error: &JobsTableError) -> String {
    let text = error.to_string();
    match error {
        JobsTableError::Missing { .. } | JobsTableError::NoJobsTable { .. } => text
            .replace("--schema", "--jobs-schema")
            .replace("--table", "--jobs-table"),
        _ => text,
    }
}
