//! `lantern-cli jobs`: writes the rows that the README documents, and lists them.

mod add;
mod cancel;
mod list;
mod retry;

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::job;
use crate::jobs::{JobRow, JobStore};

/// Add, list, cancel and retry jobs
///
/// What is written are the documented columns of the jobs table: plain SQL does the same.
#[derive(Subcommand)]
pub enum Jobs {
    Add(Box<add::Add>),
    List(list::List),
    Cancel(cancel::Cancel),
    Retry(retry::Retry),
}

/// Runs a subcommand.
///
/// # Errors
/// The jobs table cannot be used, or there is no such job.
pub async fn run(command: Jobs) -> anyhow::Result<ExitCode> {
    match command {
        Jobs::Add(arguments) => return add::run(*arguments).await,
        Jobs::List(arguments) => list::run(arguments).await?,
        Jobs::Cancel(arguments) => cancel::run(arguments).await?,
        Jobs::Retry(arguments) => retry::run(arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The jobs with these ids, each once. Fails before anything is changed if one does not exist.
async fn find_all(store: &JobStore, ids: &[String]) -> anyhow::Result<Vec<JobRow>> {
    let mut rows: Vec<JobRow> = Vec::new();
    for id in ids {
        let row = job::find(store, id).await?;
        if rows.iter().all(|known| known.id != row.id) {
            rows.push(row);
        }
    }
    Ok(rows)
}
