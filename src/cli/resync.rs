//! `lantern-cli resync`

use std::time::{Duration, Instant};

use clap::Args;

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::commands::repair::Rows;

/// How often the progress is printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Embed the rows of a job whose vectors are missing or stale
///
/// Works while the daemon runs, and without it. With a fingerprint column, resync finds stale vectors by itself.
/// Without one it embeds the rows that lack a vector, or every row with --all. It writes as the daemon does: the job's
/// batch_size and skip_triggers apply.
#[derive(Args)]
pub struct Resync {
    #[command(flatten)]
    job: JobArguments,

    /// Embed every row, whatever its vector is
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    engine: EngineArguments,
}

pub async fn run(arguments: Resync) -> anyhow::Result<()> {
    let engine = arguments.engine.engine();
    let job = arguments.job.open(&engine).await?;
    println!("{}", job.title());
    let scope = if arguments.all {
        BackfillScope::All
    } else if job.target.fingerprint.is_some() {
        let trust_unverified = job.row.definition.trust_existing;
        BackfillScope::Mismatched { trust_unverified }
    } else {
        println!(
            "without a fingerprint column, stale vectors cannot be told from others: embedding rows that lack a vector (--all: every row)"
        );
        BackfillScope::Missing
    };
    let mut reported = Instant::now();
    let rows = job
        .repair(&engine, Rows::Scan(scope), move |progress| {
            if reported.elapsed() > REPORT_INTERVAL {
                reported = Instant::now();
                println!("{} of {} rows", progress.done, progress.total);
            }
        })
        .await?;
    println!("{rows} rows done");
    job.none_quarantined().await
}
