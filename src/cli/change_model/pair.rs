//! The two jobs of a change.

use anyhow::bail;

use crate::jobs::{JobId, JobRow, JobStore};

/// A job, and the one that replaces it or has done so.
pub struct Pair {
    /// The job that had the column first; `None` if its row is gone.
    pub predecessor: Option<JobRow>,
    /// The job with the new model.
    pub successor: JobRow,
}

impl Pair {
    /// Whether the columns are exchanged, by the jobs table.
    pub fn is_over(&self) -> bool {
        let replaced_by = |row: &JobRow| row.replaced_by.as_ref() == Some(&self.successor.id);
        self.predecessor.as_ref().is_some_and(replaced_by)
    }

    /// The id of the job that had the column first.
    pub fn old_id(&self) -> String {
        let named = &self.successor.definition.replaces;
        named.as_ref().map_or_else(|| "?".into(), JobId::to_string)
    }

    /// Both rows as they are now. The successor's may be gone.
    ///
    /// # Errors
    /// The server's.
    pub async fn read_again(&self, store: &JobStore) -> anyhow::Result<Option<Pair>> {
        let Some(successor) = store.rows_with_id(&self.successor.id).await?.pop() else {
            return Ok(None);
        };
        let predecessor = predecessor(store, &successor).await?;
        Ok(Some(Pair {
            predecessor,
            successor,
        }))
    }
}

/// The change of which `row` is one of the two jobs.
///
/// # Errors
/// There is none; and the server's.
pub async fn find(store: &JobStore, row: JobRow) -> anyhow::Result<Pair> {
    let mut successors = store.successors(&row.id).await?;
    successors.retain(|successor| successor.id != row.id);
    let is_replaced_by = |successor: &JobRow| row.replaced_by.as_ref() == Some(&successor.id);
    let chosen = successors
        .iter()
        .position(is_replaced_by)
        .or_else(|| successors.iter().position(|successor| !successor.canceled));
    if let Some(chosen) = chosen {
        return Ok(Pair {
            successor: successors.swap_remove(chosen),
            predecessor: Some(row),
        });
    }
    if row.definition.replaces.is_none() {
        bail!(
            "no change of the model of job {id} is under way; begin one: lantern-cli change-model --job {id} --to MODEL",
            id = row.id
        );
    }
    of_successor(store, row).await
}

/// The change of which `row` is the job with the new model.
///
/// # Errors
/// The server's.
pub async fn of_successor(store: &JobStore, row: JobRow) -> anyhow::Result<Pair> {
    Ok(Pair {
        predecessor: predecessor(store, &row).await?,
        successor: row,
    })
}

async fn predecessor(store: &JobStore, successor: &JobRow) -> anyhow::Result<Option<JobRow>> {
    match &successor.definition.replaces {
        Some(id) => Ok(store.rows_with_id(id).await?.pop()),
        None => Ok(None),
    }
}
