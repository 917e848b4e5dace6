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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::table::target::TargetTable;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// What a job knows of its table's partitions. Clones share it.
#[derive(Clone, Default)]
pub struct Partitions(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Each partition that was seen, by its links. `None` before the first look.
    known: Option<BTreeSet<String>>,
    /// Partitions that were attached and not scanned yet, by OID.
    pending: BTreeMap<u32, Arc<TargetTable>>,
}

/// What the scan of a starting attempt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The whole table, with all its partitions.
    WholeTable,
    /// Nothing but partitions that are new: everything else is up to date.
    NewPartitions,
}

/// A partition that holds rows itself.
struct Leaf {
    links: String,
    table: TargetTable,
    /// It may have been attached after the slot's confirmed position.
    recent: bool,
}

impl Partitions {
    /// The partitions that need a scan of their own when an attempt starts. There are none where the whole table is
    /// scanned.
    ///
    /// # Errors
    /// The server's.
    pub async fn to_scan(
        &self,
        session: &Session,
        target: &TargetTable,
        slot: &SlotName,
        coverage: Coverage,
    ) -> Result<Vec<Arc<TargetTable>>, DatabaseError> {
        if !target.partitioned {
            return Ok(Vec::new());
        }
        let leaves = leaves(session, target, slot).await?;
        let mut state = self.state();
        let all = leaves.iter().map(|leaf| leaf.links.clone()).collect();
        let known = state.known.replace(all);
        let is_new = |leaf: &Leaf| match &known {
            Some(known) => !known.contains(&leaf.links),
            None => leaf.recent,
        };
        match coverage {
            Coverage::WholeTable => state.pending.clear(),
            Coverage::NewPartitions => {
                let new = leaves.into_iter().filter(is_new);
                let new = new.map(|leaf| (leaf.table.oid, Arc::new(leaf.table)));
                state.pending.extend(new);
            }
        }
        Ok(state.pending.values().cloned().collect())
    }

    /// The name of a partition that was attached since the last look and has rows in it. An empty one counts as seen:
    /// its rows will come through the stream.
    ///
    /// # Errors
    /// The server's.
    pub async fn attached_with_rows(
        &self,
        session: &Session,
        target: &TargetTable,
        slot: &SlotName,
    ) -> Result<Option<String>, DatabaseError> {
        if !target.partitioned {
            return Ok(None);
        }
        let leaves = leaves(session, target, slot).await?;
        let mut known = self.state().known.clone().unwrap_or_default();
        known.retain(|links| leaves.iter().any(|leaf| leaf.links == *links));
        let mut attached = None;
        for leaf in leaves {
            if attached.is_some() || known.contains(&leaf.links) {
                continue;
            }
            if has_rows(session, &leaf.table).await? {
                attached = Some(leaf.table.qualified());
            } else {
                known.insert(leaf.links);
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
        self.state().pending.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The partitions that hold rows themselves. Reads the catalog only: `pg_partition_tree` locks every partition, and
/// would wait behind a user's ALTER TABLE (`partitionfuncs.c`).
async fn leaves(
    session: &Session,
    target: &TargetTable,
    slot: &SlotName,
) -> Result<Vec<Leaf>, DatabaseError> {
    let rows = session
        .query(
            "WITH RECURSIVE slot AS (SELECT max(age(catalog_xmin)) AS age FROM pg_replication_slots WHERE slot_name = $2), \
             tree(relid, links, recent) AS ( \
               SELECT $1::oid, '', false \
               UNION ALL \
               SELECT i.inhrelid, format('%s/%s.%s', t.links, i.inhrelid, i.xmin), \
                      t.recent OR COALESCE(age(i.xmin) BETWEEN 0 AND slot.age, false) \
               FROM tree t JOIN pg_inherits i ON i.inhparent = t.relid AND NOT i.inhdetachpending CROSS JOIN slot) \
             SELECT t.links, t.recent, c.oid, n.nspname::text, c.relname::text \
             FROM tree t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r'",
            &[&target.oid, &slot.as_str()],
        )
        .await
        .map_err(DatabaseError::during("looking for partitions"))?;
    let leaf = |row: &tokio_postgres::Row| Leaf {
        links: row.get(0),
        recent: row.get(1),
        table: TargetTable {
            oid: row.get(2),
            schema: row.get(3),
            name: row.get(4),
            partitioned: false,
            ..target.clone()
        },
    };
    Ok(rows.iter().map(leaf).collect())
}

async fn has_rows(session: &Session, partition: &TargetTable) -> Result<bool, DatabaseError> {
    let statement = format!("SELECT EXISTS (SELECT FROM {})", partition.from_clause());
    let row = session.query_one(&statement, &[]).await;
    let row = row.map_err(DatabaseError::during(format!(
        "looking into {}",
        partition.qualified()
    )))?;
    Ok(row.get(0))
}
