//! `lantern-cli change-model`

mod begin;
mod end;
mod follow;
mod new_model;
mod pair;

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::engine_arguments::EngineArguments;
use super::job::JobArguments;
use crate::jobs::JobStore;
use begin::Beginning;
use new_model::NewModelArguments;

/// Give a column of vectors another model, without a moment in which vectors of two models stand side by side
///
/// With --to a second job is added, which fills a column beside the first and follows the same changes. Once every
/// row has a vector, and the index if there is one, the two columns exchange their names in one short transaction,
/// and the first job ends. Until then searches find the old vectors, and from then on the new ones. The old column
/// stays until --drop-old. A daemon does the work: the command only follows it, and may be left with Ctrl-C. Without
/// other options it says how far the change is.
#[derive(Args)]
pub struct ChangeModel {
    #[command(flatten)]
    job: JobArguments,

    #[command(flatten)]
    model: NewModelArguments,

    /// Give the change up: the column of the new model is dropped, and the job goes on as before
    #[arg(long, conflicts_with_all = ["to", "drop_old", "despite_failures"])]
    cancel: bool,

    /// After the change: drop the column with the vectors of the old model
    #[arg(long, conflicts_with_all = ["to", "despite_failures"])]
    drop_old: bool,

    /// Do not wait for rows that could not be embedded with the new model, and are in the failures table
    #[arg(long)]
    despite_failures: bool,

    /// Do not follow the change to its end
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    engine: EngineArguments,
}

/// Does what the options say.
///
/// # Errors
/// The change is not possible, or has failed: the message says what to do.
pub async fn run(arguments: ChangeModel) -> anyhow::Result<ExitCode> {
    let (store, row) = arguments.job.find_named_row().await?;
    if arguments.model.to.is_some() {
        let beginning = Beginning {
            job: &arguments.job,
            model: &arguments.model,
            engine: &arguments.engine,
            despite_failures: arguments.despite_failures,
        };
        let pair = begin::begin(beginning, &store, row).await?;
        return arguments.follow(&store, pair).await;
    }
    if let Some(option) = arguments.model.first_option() {
        bail!("{option} is an option of the new model: name that with --to");
    }
    if arguments.drop_old {
        return end::drop_old(&arguments.job, &store, &row).await;
    }
    let pair = pair::find(&store, row).await?;
    if arguments.cancel {
        return end::cancel(&arguments.job, &store, &pair).await;
    }
    if arguments.despite_failures {
        begin::accept_failures(&store, &pair).await?;
        return arguments.follow(&store, pair).await;
    }
    follow::print(&store, &pair).await?;
    Ok(ExitCode::SUCCESS)
}

impl ChangeModel {
    async fn follow(&self, store: &JobStore, pair: pair::Pair) -> anyhow::Result<ExitCode> {
        match self.no_wait {
            true => Ok(ExitCode::SUCCESS),
            false => follow::follow(store, pair).await,
        }
    }
}
