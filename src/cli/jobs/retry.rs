//! `lantern-cli jobs retry`

use clap::Args;

use super::find_all;
use crate::cli::jobs_table::JobsTableArguments;
use crate::cli::output;

/// Have failed jobs tried again, after their cause is removed
#[derive(Args)]
pub struct Retry {
    #[command(flatten)]
    jobs_table: JobsTableArguments,

    /// The ids of the jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// Starts the jobs again.
///
/// # Errors
/// There is no such job, or the role may not; then nothing, or only what was printed, is changed.
pub async fn run(arguments: Retry) -> anyhow::Result<()> {
    let store = arguments.jobs_table.open().await?;
    for row in find_all(&store, &arguments.ids).await? {
        let id = &row.id;
        let was_failed = store.retry(id).await?;
        output::line(match (was_failed, row.canceled) {
            (true, false) => {
                format!("job {id} is tried again by a daemon with this jobs table within a second")
            }
            (true, true) => format!(
                "the failure of job {id} is cleared, but it is canceled; to run it again: {}",
                store.table().resume_statement(id)
            ),
            (false, _) => format!("job {id} has not failed; nothing was changed"),
        })?;
    }
    Ok(())
}
