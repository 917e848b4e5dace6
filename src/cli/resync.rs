//! `lantern-cli resync`

use std::time::{Duration, Instant};

use clap::Args;

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::commands::repair::Rows;

/// Embed again what is missing or stale of a job
///
/// Works beside the running daemon or without one. With a fingerprint column it finds the stale rows by itself; without one it
/// embeds rows that lack a vector, or with --all every row.
#[derive(Args)]
pub struct Resync {
    #[command(flatten)]
    job: JobArguments,

    /// Every row, whatever is there
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
            "without a fingerprint column stale vectors are not recognised: embedding rows that lack a vector (--all: every row)"
        );
        BackfillScope::Missing
    };
    let mut said = Instant::now();
    let rows = job
        .repair(&engine, Rows::Scan(scope), move |progress| {
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                println!("{} of {} rows", progress.done, progress.total);
            }
        })
        .await?;
    println!("{rows} rows done");
    job.none_aside().await
}
