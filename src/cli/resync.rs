//! `lantern-cli resync`

use std::num::NonZeroU64;

use anyhow::bail;
use clap::Args;

use super::engine_arguments::{EngineArguments, InferenceArguments};
use super::job::{JobArguments, OpenJob};
use super::output;
use super::refuse_superuser::RefuseSuperuserArguments;
use super::verify::{comparing, show};
use crate::embedding::Engine;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::commands::row_work::{Rows, Scan};
use crate::pipeline::commands::verify::compare_sample;

/// How many texts are embedded again to see whether vectors are stale that nothing marks: as many as `verify` does.
const SAMPLE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

/// Embed the rows of a job whose vectors are missing or stale
///
/// Works while the daemon runs, and without it. With a fingerprint column, resync finds stale vectors by itself.
/// Without one it embeds the rows that lack a vector, then compares a sample of the others with their texts and exits
/// with 1 if some are stale: --all embeds every row. With a chunk table it embeds the documents whose passages are missing,
/// incomplete or of another text, and deletes passages of rows that are gone. It writes as the daemon does: the job's batch_size and
/// skip_triggers apply.
#[derive(Args)]
pub struct Resync {
    #[command(flatten)]
    job: JobArguments,

    #[command(flatten)]
    refuse_superuser: RefuseSuperuserArguments,

    /// Embed every row, whatever its vector is; with a chunk table every passage
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    engine: EngineArguments,

    #[command(flatten)]
    inference: InferenceArguments,
}

pub async fn run(arguments: Resync) -> anyhow::Result<()> {
    let engine = arguments.engine.engine_for_rows(&arguments.inference)?;
    let job = arguments.job.open(&engine).await?;
    job.check_exposure(arguments.refuse_superuser.powerful_roles())
        .await?;
    output::line(job.title())?;
    let scope = match arguments.all {
        true => BackfillScope::All,
        false => BackfillScope::for_resync(&job.row.definition, &job.target),
    };
    if scope == BackfillScope::Missing {
        output::line(
            "without a fingerprint column, stale vectors cannot be told from others: embedding rows that lack a vector \
             (--all: every row)",
        )?;
    }
    // Rows whose key has become another one are found by the scan.
    job.quarantined_keys().await?;
    let doing = format!("resync of job {}", job.row.id);
    let rows = job
        .repair(&engine, Rows::Scan(Scan::whole(scope)), &doing)
        .await?;
    output::line(format_args!("{} done", job.counted(rows)))?;
    job.none_quarantined().await?;
    if scope == BackfillScope::Missing {
        none_stale(&job, &engine).await?;
    }
    Ok(())
}

/// Fails where vectors are stale that a scan for missing ones has passed over.
async fn none_stale(job: &OpenJob, engine: &Engine) -> anyhow::Result<()> {
    let mut progress = comparing(&job.row.id);
    let found = compare_sample(job.vectors(engine), SAMPLE, |now| show(&mut progress, now)).await?;
    drop(progress);
    if found.stale > 0 {
        bail!(
            "{} of {} vectors that were compared with their texts are stale, and were left as they are: without a \
             fingerprint column only `lantern-cli resync --all --job {}` repairs them",
            found.stale,
            found.compared,
            job.row.id
        );
    }
    output::line(format_args!(
        "{} vectors were compared with their texts, and none is stale; --all embeds every row",
        found.compared
    ))?;
    Ok(())
}
