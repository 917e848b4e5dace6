//! Rows whose texts must be read by key, because their senders did not have them.
//!
//! However often a row changes while it waits here, it is read once: then it shows its newest text.

use std::collections::{BTreeMap, HashMap};

use crate::pipeline::table::row::{Key, Row};
use crate::pipeline::write::queue::PendingWrite;

/// The rows in the order in which they came.
#[derive(Default)]
pub struct Unread {
    rows: BTreeMap<u64, PendingWrite>,
    /// The place of the newest row of each key that has just come in, and was not tried yet.
    newest: HashMap<Key, u64>,
    next_place: u64,
}

impl Unread {
    /// Adds a row at the end.
    pub fn push(&mut self, pending: PendingWrite) {
        self.next_place += 1;
        self.rows.insert(self.next_place, pending);
    }

    /// Adds a row that has just come in, in the place of an older one of its key. Returns the older row, which needs no
    /// reading of its own.
    pub fn push_newest(&mut self, row: Row) -> Option<Row> {
        let older = self.superseded_by(&row, &row.key);
        let place = older.unwrap_or(self.next_place + 1);
        self.next_place = self.next_place.max(place);
        self.newest.insert(row.key.clone(), place);
        let older = self.rows.insert(place, PendingWrite::new(row, None))?;
        Some(older.embedded.row)
    }

    /// Takes a row of this key back that `newer` makes needless.
    pub fn withdraw(&mut self, key: &Key, newer: &Row) -> Option<Row> {
        let place = self.superseded_by(newer, key)?;
        self.newest.remove(key);
        Some(self.rows.remove(&place)?.embedded.row)
    }

    /// The newest row of this key.
    pub fn newest(&mut self, key: &Key) -> Option<&mut Row> {
        let pending = self.rows.get_mut(self.newest.get(key)?)?;
        Some(&mut pending.embedded.row)
    }

    /// Takes the oldest rows, at most `count`.
    pub fn take(&mut self, count: usize) -> Vec<PendingWrite> {
        let taken: Vec<(u64, PendingWrite)> = std::iter::from_fn(|| self.rows.pop_first())
            .take(count)
            .collect();
        let rows = taken.into_iter().map(|(place, pending)| {
            let key = &pending.embedded.row.key;
            if self.newest.get(key) == Some(&place) {
                self.newest.remove(key);
            }
            pending
        });
        rows.collect()
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &PendingWrite> {
        self.rows.values()
    }

    fn superseded_by(&self, newer: &Row, key: &Key) -> Option<u64> {
        let place = *self.newest.get(key)?;
        let older = self.rows.get(&place)?;
        newer.supersedes(&older.embedded.row).then_some(place)
    }
}
