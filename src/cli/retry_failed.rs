//! `lantern-cli retry-failed`

use anyhow::bail;
use clap::Args;

use super::engine_arguments::{EngineArguments, InferenceArguments};
use super::job::JobArguments;
use super::output;
use super::refuse_superuser::RefuseSuperuserArguments;
use crate::pipeline::commands::row_work::Rows;

/// Retry the quarantined rows of a job
///
/// These are the rows that could not be embedded or written, or the documents of a job with a chunk table. Rows that can be written now, or no longer exist, leave
/// the failures table. The others stay there with their newest error. Works while the daemon runs, and without it. A
/// job that has failed as a whole is started again by setting its init_failed_at to NULL.
#[derive(Args)]
pub struct RetryFailed {
    #[command(flatten)]
    job: JobArguments,

    #[command(flatten)]
    refuse_superuser: RefuseSuperuserArguments,

    #[command(flatten)]
    engine: EngineArguments,

    #[command(flatten)]
    inference: InferenceArguments,
}

pub async fn run(arguments: RetryFailed) -> anyhow::Result<()> {
    let engine = arguments.engine.engine_for_rows(&arguments.inference)?;
    let job = arguments.job.open(&engine).await?;
    job.check_exposure(arguments.refuse_superuser.powerful_roles())
        .await?;
    output::line(job.title())?;
    let keys = job.quarantined_keys().await?;
    if keys.is_empty() && job.row.failed {
        bail!(
            "no row of job {} is quarantined, so there is none to retry: the job itself has failed, see above; this \
             starts it again: {}",
            job.row.id,
            job.store.restart_statement(&job.row.id)
        );
    }
    let doing = format!("retrying rows of job {}", job.row.id);
    let rows = job.repair(&engine, Rows::Keys(keys), &doing).await?;
    output::line(format_args!("{} tried", job.counted(rows)))?;
    job.none_quarantined().await
}
