//! `lantern-cli embed-table`

mod arguments;
mod report;
mod words;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use tokio_util::sync::CancellationToken;

pub use self::arguments::EmbedTable;
use self::words::in_options;
use super::progress::{Progress, ROWS};
use super::{output, stderr, stop_signals};
use crate::embedding::Engine;
use crate::pipeline::backfill::scope::BackfillScope;
use crate::pipeline::commands::embed_table::planned::PlannedTable;
use crate::pipeline::commands::embed_table::{Outcome, Request, index};
use crate::pipeline::error::JobError;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::setup::model;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::ConnectionString;
use crate::postgres::quote::identifier;

/// What is said at the first signal.
const STOPPING: &str =
    "stopping: the rows under way are finished first; a second Ctrl-C ends the command at once";

/// Embeds the table, or says with `--dry-run` what there is to do.
pub async fn run(arguments: EmbedTable) -> anyhow::Result<ExitCode> {
    let request = arguments.request();
    let engine = arguments.engine()?;
    let planned = plan(&arguments, &request, &engine).await?;
    if arguments.is_dry_run() {
        report::plan(&planned, &planned.count().await.map_err(said)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    Box::pin(embed(planned, &engine)).await
}

/// Looks at everything, and loads the model between two looks.
async fn plan<'a>(
    arguments: &EmbedTable,
    request: &'a Request,
    engine: &Engine,
) -> anyhow::Result<PlannedTable<'a>> {
    let database = ConnectionString::from_operator(arguments.uri()).context("--uri")?;
    let open = request.open(&database, arguments.powerful_roles()).await;
    let open = open.map_err(said)?;
    if let Some(exposure) = &open.exposure {
        stderr::line(&format!("warning: {exposure}"));
    }
    let model = model::load_for_operator(engine, open.names()).await;
    let model = model.map_err(said)?;
    output::line(format_args!("{} with {}", request.definition, model.name()))?;
    PlannedTable::new(open, model).await.map_err(said)
}

/// Creates what is missing, embeds the rows, and builds the index that was asked for.
async fn embed(planned: PlannedTable<'_>, engine: &Engine) -> anyhow::Result<ExitCode> {
    for (column, kind) in planned.missing() {
        let column = identifier(column);
        output::line(format_args!("creating the column {column} {kind}"))?;
    }
    let may_be_stale = planned.has_destination();
    let (wanted, database) = (planned.index().cloned(), planned.database().clone());
    let table = planned.complete().await.map_err(said)?;
    let (target, scope) = (table.target().clone(), table.scope());
    if may_be_stale && scope == BackfillScope::Missing {
        output::line(report::UNMARKED)?;
    }
    let stop = CancellationToken::new();
    let signal = stop_signals::stop_command_on_signals(stop.clone(), STOPPING)?;
    let began = Instant::now();
    let mut progress = Progress::new(&format!("embedding {}", target.qualified()), ROWS);
    let ran = table.run(engine, stop.clone(), |now| {
        progress.set_total(now.total);
        progress.set(now.done);
    });
    let again = report::how_to_go_on(scope);
    let outcome = ran
        .await
        .map_err(|error| anyhow!("{}; {again}", in_options(&error.to_string())))?;
    progress.finish();
    report::done(&outcome, began.elapsed())?;
    if !outcome.is_stopped
        && let Some(wanted) = wanted
    {
        build_index(&database, target, wanted, &stop).await?;
    }
    end(&outcome, &stop, again, signal.get().copied())
}

/// Builds the index, unless the command is stopped meanwhile.
async fn build_index(
    database: &ConnectionString,
    target: Arc<TargetTable>,
    wanted: WantedIndex,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut progress = report::IndexProgress::default();
    let build = index::build(database, target, wanted, move |state| progress.tell(state));
    let built = tokio::select! {
        built = build => built,
        () = stop.cancelled() => return Ok(()),
    };
    let name = built.map_err(|error| {
        let error = in_options(&error.to_string());
        anyhow!(
            "the vectors are written, but their index is not built: {error}; run the same command again"
        )
    })?;
    output::line(format_args!("the index {name} is there"))?;
    Ok(())
}

/// The exit status, after what is left was said.
fn end(
    outcome: &Outcome,
    stop: &CancellationToken,
    again: &str,
    signal: Option<u8>,
) -> anyhow::Result<ExitCode> {
    if stop.is_cancelled() {
        report::failed(&outcome.failed);
        stderr::line(&format!("stopped before the end; {again}"));
        return Ok(ExitCode::from(signal.unwrap_or(130)));
    }
    report::none_failed(&outcome.failed)?;
    Ok(ExitCode::SUCCESS)
}

/// The error in the words of this command.
fn said(error: JobError) -> anyhow::Error {
    anyhow!(in_options(&error.to_string()))
}
