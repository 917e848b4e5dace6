//! `lantern-cli jobs add`

use std::process::ExitCode;

use clap::Args;

use crate::cli::check::{DaemonArguments, verdict};
use crate::cli::jobs_table::JobsTableArguments;
use crate::cli::new_job::{NewJobArguments, Place};
use crate::cli::{output, points, stderr};
use crate::jobs::definition::without_keys;
use crate::jobs::edit::NewValues;
use crate::pipeline::setup::preflight::points::{Outcome, Points};
use crate::postgres::connection_string::rewritten;

/// Add a job: keep the embeddings of a column up to date
///
/// Checks first what the job needs, as `lantern-cli check` does, and adds nothing if it would not start. Prints the
/// INSERT that it did, and the id.
#[derive(Args)]
pub struct Add {
    #[command(flatten)]
    jobs_table: JobsTableArguments,

    /// The table
    #[arg(long, value_name = "NAME")]
    table: String,

    /// The column with the text
    #[arg(long, value_name = "NAME")]
    column: String,

    #[command(flatten)]
    new_job: NewJobArguments,

    #[command(flatten)]
    daemon: DaemonArguments,

    /// Add the job although the check fails
    #[arg(long)]
    force: bool,

    /// Do not check what the job needs
    #[arg(long, conflicts_with = "force")]
    no_check: bool,
}

/// Checks, and adds the job.
///
/// # Errors
/// The jobs table cannot be used, or has not the columns for the options.
pub async fn run(arguments: Add) -> anyhow::Result<ExitCode> {
    let place = Place {
        table: &arguments.table,
        column: &arguments.column,
    };
    let store = arguments.jobs_table.open().await?;
    let values = arguments
        .new_job
        .values(&place, &arguments.jobs_table.uri)?;
    store.check_columns(&values)?;
    arguments
        .new_job
        .warn_of_password(&arguments.jobs_table.uri);
    if !arguments.no_check {
        let row = arguments.new_job.row(&values);
        let label = arguments.new_job.label.as_deref();
        let mut points = Points::default();
        let daemon = &arguments.daemon;
        daemon.check(&row, Some(&store), label, &mut points).await?;
        let is_news =
            |outcome: &Outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Advice(_));
        points::print(&points, is_news)?;
        if !points.may_start() && !arguments.force {
            stderr::line(&format!(
                "{} Nothing was added; --force adds the job all the same.",
                verdict(&points)
            ));
            return Ok(ExitCode::FAILURE);
        }
    }
    let id = store.add(&values).await?;
    output::lines(&[
        format!("{};", store.insert_statement(&shown_values(values))),
        format!("job {id} is added; a daemon with this jobs table starts it within a second"),
    ])?;
    Ok(ExitCode::SUCCESS)
}

/// The values with passwords and keys hidden.
fn shown_values(values: NewValues) -> NewValues {
    let shown = values.into_iter().map(|(column, value)| match column {
        "db_connection" | "write_connection" => (column, rewritten::without_password(&value)),
        "runtime_params" => (column, without_keys(&value)),
        _ => (column, value),
    });
    shown.collect()
}
