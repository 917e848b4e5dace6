//! `lantern-cli jobs cancel`

use clap::Args;

use super::find_all;
use crate::cli::jobs_table::JobsTableArguments;
use crate::cli::output;

/// Cancel jobs: a daemon ends them, and drops their slots and publications
///
/// Vectors that are written stay. A canceled job that is to run again embeds every row again, or, with a fingerprint
/// column, those that have changed.
#[derive(Args)]
pub struct Cancel {
    #[command(flatten)]
    jobs_table: JobsTableArguments,

    /// The ids of the jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Cancels the jobs.
///
/// # Errors
/// There is no such job, or the role may not; then nothing, or only what was printed, is changed.
pub async fn run(arguments: Cancel) -> anyhow::Result<()> {
    let store = arguments.jobs_table.open().await?;
    for row in find_all(&store, &arguments.ids).await? {
        let said = match store.cancel(&row.id).await? {
            true => format!(
                "job {} is canceled; a daemon with this jobs table ends it and drops its slot and publication within a \
                 second, and its vectors stay",
                row.id
            ),
            false => format!("job {} is canceled already", row.id),
        };
        output::line(said)?;
    }
    Ok(())
}
