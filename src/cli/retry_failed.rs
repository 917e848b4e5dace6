//! `lantern-cli retry-failed`

use clap::Args;

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use crate::pipeline::commands::repair::Rows;

/// Try the rows of a job once more that were put aside
///
/// Rows that can be written now, or are gone, leave the failures table; the others stay there with their newest error. Works
/// beside the running daemon or without one.
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
    let strange = failures.len() - keys.len();
    if strange > 0 {
        println!(
            "{strange} rows were put aside under another key than the table has now; delete them from {}",
            job.store.table().failures()
        );
    }
    let rows = job.repair(&engine, Rows::Keys(keys), |_| {}).await?;
    println!("{rows} rows tried");
    job.none_aside().await
}
