//! Partitions that are attached to a job's table, with rows in them: no change brings those rows, so they are looked for.
//!
//! A partition is known by its links up to the table, with the transaction that made each (`pg_inherits.xmin`), so that one
//! that was detached and attached again is another. A job compares what is there with what it has seen. When it has seen
//! nothing yet, a link counts as new that may be younger than what the slot has confirmed (`catalog_xmin`); a job that has
//! only just begun may look through a partition once too often by that.

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
    /// Partitions that were attached and have yet to be looked through.
    pending: BTreeMap<u32, Arc<TargetTable>>,
}

/// A partition that holds rows itself.
struct Leaf {
    links: String,
    table: TargetTable,
    /// It may have been attached after the slot's confirmed position.
    recent: bool,
}

impl Partitions {
    /// The partitions to look through at the start of an attempt; none where the whole table has to be looked through
    /// (`unbroken` is false), which leaves nothing to do for each alone.
    ///
    /// # Errors
    /// The server's.
    pub async fn to_look_through(
        &self,
        session: &Session,
        target: &TargetTable,
        slot: &SlotName,
        unbroken: bool,
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
        if unbroken {
            let new = leaves.into_iter().filter(is_new);
            let new = new.map(|leaf| (leaf.table.oid, Arc::new(leaf.table)));
            state.pending.extend(new);
        } else {
            state.pending.clear();
        }
        Ok(state.pending.values().cloned().collect())
    }

    /// The name of a partition that has been attached since the last look, if it has rows in it.
    ///
    /// # Errors
    /// The server's.
    pub async fn attached(
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

    /// Whether some partitions, and nothing else, have yet to be looked through.
    pub fn are_pending(&self) -> bool {
        !self.state().pending.is_empty()
    }

    /// Everything has been looked through.
    pub fn finished(&self) {
        self.state().pending.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the catalogue without locking any partition, as `pg_partition_tree` would.
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
