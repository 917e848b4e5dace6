//! `lantern-cli retry-failed`

use clap::Args;

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use crate::pipeline::commands::repair::Rows;

/// Retry the quarantined rows of a job
///
/// These are the rows that could not be embedded or written. Rows that can be written now, or no longer exist, leave
/// the failures table. The others stay there with their newest error. Works while the daemon runs, and without it.
#[derive(Args)]
pub struct RetryFailed {
    #[command(flatten)]
    job: JobArguments,

    #[command(flatten)]
    engine: EngineArguments,
}

pub async fn run(arguments: RetryFailed) -> anyhow::Result<()> {
    let engine = arguments.engine.engine();
    let job = arguments.job.open(&engine).await?;
    println!("{}", job.title());
    let failures = job.store.failures(&job.row.id).await?;
    let keys: Vec<_> = failures
        .iter()
        .filter_map(|failure| job.target.key_from_json(&failure.key))
        .collect();
    let unknown = failures.len() - keys.len();
    if unknown > 0 {
        println!(
            "{unknown} rows were quarantined under another key than the table has now; delete them from {}",
            job.store.table().failures()
        );
    }
    let rows = job.repair(&engine, Rows::Keys(keys), |_| {}).await?;
    println!("{rows} rows tried");
    job.none_quarantined().await
}
