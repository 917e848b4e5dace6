//! Partitions that are attached to a job's table with rows in them: no change brings those rows, so they are scanned.
//!
//! A partition is known by its links up to the table, each with the transaction that made it (`pg_inherits.xmin`). So
//! one that was detached and attached again is another one. A job compares what is there with what it has seen:
//!
//! ```text
//! attempt starts ──▶ to_scan             partitions that are new: scan each of them
//! once a second  ──▶ attached_with_rows  a new one with rows: end the attempt, the next one scans it
//! ```
//!
//! A job that has seen nothing yet, because its daemon has just started, takes a link for new if it may be younger than
//! what its slot has confirmed (`catalog_xmin`). A job that has only just begun may scan a partition once too often by
//! that.
//!
//! A partition that is truncated, detached or dropped takes its rows along, and no change says so: see
//! [`PassagesFault::PartitionEmptied`](crate::pipeline::setup::passages_state::PassagesFault). The watchdog sees that while
//! an attempt lasts. What happened between two attempts shows in the files that are gone, and a daemon that has just started
//! knows of none. So it looks for passages without a row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::backfill::scan::Part;
use crate::pipeline::table::leaf::Leaf;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};

/// What a job knows of its table's partitions. Clones share it.
#[derive(Clone, Default)]
pub struct Partitions(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Each partition that was seen, by its links. `None` before the first look.
    known: Option<BTreeSet<String>>,
    /// Partitions that were attached and not scanned yet, by OID.
    pending: BTreeMap<u32, Leaf>,
    /// The partitions with their files at the last look. `None` before the first one.
    files: Option<Vec<String>>,
    /// Passages may have lost their rows without a change in the stream.
    may_have_orphans: bool,
}

/// What the scan of a starting attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The whole table, with all its partitions.
    WholeTable,
    /// Nothing but partitions that are new: everything else is up to date.
    NewPartitions,
}

impl Partitions {
    /// The partitions that need a scan of their own when an attempt starts, of the `leaves` that there are. There are none
    /// where the whole table is scanned.
    ///
    /// # Errors
    /// The server's.
    pub async fn to_scan(
        &self,
        session: &Session,
        target: &Arc<TargetTable>,
        leaves: &[Leaf],
        coverage: Coverage,
    ) -> Result<Vec<Part>, DatabaseError> {
        let pending = self.note(leaves, coverage);
        let mut parts = Vec::with_capacity(pending.len());
        for leaf in pending {
            parts.push(part(session, target, &leaf).await?);
        }
        Ok(parts)
    }

    /// Remembers the leaves; returns those that are to be scanned.
    fn note(&self, leaves: &[Leaf], coverage: Coverage) -> Vec<Leaf> {
        let mut state = self.state();
        let all = leaves.iter().map(|leaf| leaf.links.clone()).collect();
        let known = state.known.replace(all);
        let is_new = |leaf: &&Leaf| match &known {
            Some(known) => !known.contains(&leaf.links),
            None => leaf.is_recent,
        };
        match coverage {
            Coverage::WholeTable => state.pending.clear(),
            Coverage::NewPartitions => {
                let new = leaves.iter().filter(is_new);
                let new = new.map(|leaf| (leaf.oid, leaf.clone()));
                state.pending.extend(new);
            }
        }
        state.pending.values().cloned().collect()
    }

    /// The name of a partition, of the `leaves` that there are, that was attached since the last look and has rows in it. An
    /// empty one counts as seen: its rows will come through the stream.
    ///
    /// # Errors
    /// The server's.
    pub async fn attached_with_rows(
        &self,
        session: &Session,
        leaves: &[Leaf],
    ) -> Result<Option<String>, DatabaseError> {
        let mut known = self.state().known.clone().unwrap_or_default();
        known.retain(|links| leaves.iter().any(|leaf| leaf.links == *links));
        let mut attached = None;
        for leaf in leaves {
            if attached.is_some() || known.contains(&leaf.links) {
                continue;
            }
            if may_have_rows(session, leaf).await? {
                attached = Some(leaf.qualified());
            } else {
                known.insert(leaf.links.clone());
            }
        }
        self.state().known = Some(known);
        Ok(attached)
    }

    /// Whether some partitions, and nothing else, are yet to be scanned.
    pub fn are_pending(&self) -> bool {
        !self.state().pending.is_empty()
    }

    /// The scan has ended: no partition is pending.
    pub fn scanned(&self) {
        let mut state = self.state();
        state.pending.clear();
        state.may_have_orphans = false;
    }

    /// Remembers the partitions with their files, as the table's state has them.
    pub fn note_files(&self, files: &[String]) {
        let mut state = self.state();
        let is_gone = |file: &String| !files.contains(file);
        let known = state.files.replace(files.to_vec());
        state.may_have_orphans |= known.is_none_or(|known| known.iter().any(is_gone));
    }

    /// Whether passages may have lost their rows without a change in the stream, since the last scan.
    pub fn may_have_orphans(&self) -> bool {
        self.state().may_have_orphans
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the file of a partition has any page. Its size may be read without any right on it, and the role may have rights
/// on the partitioned table alone.
async fn may_have_rows(session: &Session, leaf: &Leaf) -> Result<bool, DatabaseError> {
    session
        .query_one(
            "SELECT COALESCE(pg_relation_size($1::oid::regclass), 0) > 0",
            &[&leaf.oid],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(format!(
            "looking into {}",
            leaf.qualified()
        )))
}

/// How a partition is scanned: under its own name where the role may, since that takes one index alone; else by way of the
/// partitioned table. There the bounds of the partition let the server leave out the other ones.
async fn part(
    session: &Session,
    target: &Arc<TargetTable>,
    leaf: &Leaf,
) -> Result<Part, DatabaseError> {
    if leaf.is_readable {
        return Ok(Part {
            table: Arc::new(TargetTable {
                oid: leaf.oid,
                schema: leaf.schema.clone(),
                name: leaf.name.clone(),
                partitioned: false,
                ..TargetTable::clone(target)
            }),
            within: None,
            is_whole: false,
        });
    }
    let bounds: String = session
        .query_one(
            "SELECT COALESCE(pg_get_partition_constraintdef($1), 'true')",
            &[&leaf.oid],
        )
        .await
        .and_then(|row| row.try_get(0))
        .map_err(DatabaseError::during(format!(
            "reading the bounds of {}",
            leaf.qualified()
        )))?;
    let within = format!("t.tableoid = {} AND ({bounds})", leaf.oid);
    Ok(Part {
        table: target.clone(),
        within: Some(within),
        is_whole: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_may_have_lost_their_rows_before_the_first_look_and_where_a_file_is_gone() {
        let files = |names: &[&str]| -> Vec<String> {
            let names = names.iter();
            names.map(|name| (*name).to_owned()).collect()
        };
        let partitions = Partitions::default();
        partitions.note_files(&files(&["20/20", "21/21"]));
        assert!(partitions.may_have_orphans());
        partitions.scanned();
        partitions.note_files(&files(&["20/20", "21/21", "22/22"]));
        assert!(!partitions.may_have_orphans());
        // Truncated, and later detached: each until the next scan.
        partitions.note_files(&files(&["20/20", "21/30", "22/22"]));
        assert!(partitions.may_have_orphans());
        partitions.scanned();
        partitions.note_files(&files(&["20/20", "21/30"]));
        partitions.note_files(&files(&["20/20", "21/30"]));
        assert!(partitions.may_have_orphans());
    }
}
