//! The end of a change: given up before the columns are exchanged, or the old column dropped afterwards.

use std::process::ExitCode;

use anyhow::bail;

use super::pair::{self, Pair};
use crate::cli::job::JobArguments;
use crate::cli::output;
use crate::jobs::{JobRow, JobStore};
use crate::pipeline::changeover::cleanup;
use crate::pipeline::changeover::stage::{self, Stage};

/// Cancels the new job before it has taken over.
///
/// # Errors
/// It has taken over, or the role may not; and the server's.
pub async fn cancel(
    arguments: &JobArguments,
    store: &JobStore,
    pair: &Pair,
) -> anyhow::Result<ExitCode> {
    let (id, old) = (&pair.successor.id, pair.old_id());
    if pair.is_over() || is_swapped(arguments, store, &pair.successor).await {
        bail!(
            "job {id} has replaced job {old} already; to go back, change the model again: lantern-cli change-model \
             --job {id} --to {}",
            pair.predecessor
                .as_ref()
                .and_then(|row| row.definition.embedding_model.as_deref())
                .unwrap_or("MODEL")
        );
    }
    let said = match store.cancel(id).await? {
        true => format!(
            "job {id} is canceled; a daemon drops its column, slot and publication, and job {old} goes on as before"
        ),
        false => format!("job {id} is canceled already"),
    };
    output::line(said)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the columns are exchanged, though the jobs table may not say so yet. A target that is away keeps no change from
/// being given up.
async fn is_swapped(arguments: &JobArguments, store: &JobStore, successor: &JobRow) -> bool {
    let Ok(session) = arguments.open_target(store, successor).await else {
        return false;
    };
    let found = stage::of_job(&session, &successor.definition, &successor.id).await;
    matches!(found, Ok(Some(Stage::Swapped)))
}

/// Drops the column with the old vectors.
///
/// # Errors
/// The columns are not exchanged yet, or the role may not; and the server's.
pub async fn drop_old(
    arguments: &JobArguments,
    store: &JobStore,
    row: &JobRow,
) -> anyhow::Result<ExitCode> {
    let session = arguments.open_target(store, row).await?;
    let is_swapped = async |row: &JobRow| {
        let found = stage::of_job(&session, &row.definition, &row.id).await?;
        anyhow::Ok(found == Some(Stage::Swapped))
    };
    let pair = match is_swapped(row).await? {
        true => pair::of_successor(store, row.clone()).await?,
        false => pair::find(store, row.clone()).await?,
    };
    let (id, definition) = (&pair.successor.id, &pair.successor.definition);
    if !pair.is_over() {
        if !is_swapped(&pair.successor).await? {
            bail!(
                "job {id} has not replaced job {} yet, whose column is in use",
                pair.old_id()
            );
        }
        // Without the column nothing else would tell that the job has replaced the other one.
        store.forget_replaced(id).await?;
    }
    let dropped = cleanup::drop_before(&session, definition, id).await?;
    let said = match dropped.is_empty() {
        true => format!("job {id} has no old column"),
        false => format!("dropped {}", dropped.join(" and ")),
    };
    output::line(said)?;
    Ok(ExitCode::SUCCESS)
}
