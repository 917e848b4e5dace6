//! A job whose column another one has taken over, with another model: commands go on with that one.

use anyhow::bail;

use super::stderr;
use crate::jobs::{JobRow, JobStore};
use crate::pipeline::changeover::place::Place;
use crate::pipeline::changeover::stage::find_successor;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::TargetNames;
use crate::postgres::Session;

/// Jobs that replace each other in a circle do not keep a command forever.
const MAX_STEPS: usize = 100;

/// The job that writes the column of `row` now, by the jobs table: `row` itself, unless it was replaced.
///
/// # Errors
/// The server's.
pub async fn follow(store: &JobStore, mut row: JobRow) -> anyhow::Result<JobRow> {
    for _ in 0..MAX_STEPS {
        let Some(successor) = &row.replaced_by else {
            return Ok(row);
        };
        let mut found = store.rows_with_id(successor).await?;
        let Some(next) = found.pop() else {
            return Ok(row);
        };
        tell(&row, &next);
        row = next;
    }
    bail!(
        "the jobs of {} have replaced each other in a circle: correct replaced_by of job {}",
        store.table().qualified(),
        row.id
    )
}

/// The job that has replaced `row` in its table, where the jobs table does not say so yet.
///
/// # Errors
/// The servers'.
pub async fn just_now(
    store: &JobStore,
    session: &Session,
    row: &JobRow,
) -> Result<Option<JobRow>, JobError> {
    let successors = store.successors(&row.id).await?;
    if successors.is_empty() {
        return Ok(None);
    }
    let names = TargetNames::from_definition(&row.definition)?;
    let found = find_successor(session, &names, row, &successors).await?;
    if let Some(successor) = found {
        tell(row, successor);
    }
    Ok(found.cloned())
}

/// Where the job writes now.
///
/// # Errors
/// Permanent where it is to replace another job and cannot; and the servers'.
pub async fn place(
    store: &JobStore,
    session: &Session,
    names: TargetNames,
    row: &JobRow,
) -> Result<Place, JobError> {
    let Some(replaced) = &row.definition.replaces else {
        return Ok(Place::ordinary(names, &row.definition));
    };
    let predecessor = store.rows_with_id(replaced).await?.pop();
    Place::of_successor(session, names, row, predecessor).await
}

fn tell(row: &JobRow, successor: &JobRow) {
    stderr::line(&format!(
        "note: job {} was replaced by job {} ({}), which is taken here",
        row.id,
        successor.id,
        successor
            .definition
            .embedding_model
            .as_deref()
            .unwrap_or("?")
    ));
}
