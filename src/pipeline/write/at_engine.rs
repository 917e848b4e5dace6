//! Rows whose texts are at the embedding engine.
//!
//! A row that changes again while its older text still waits needs one vector only: that of the newest text, which takes
//! the older one's place in the engine's queue. A row that changes all the time gets its turn like any other.

use std::collections::HashMap;

use crate::embedding::{Priority, Submitter};
use crate::pipeline::table::row::{Ack, Key, Row};

/// The rows by the number with which their text was submitted.
pub struct AtEngine {
    submitter: Submitter,
    rows: HashMap<u64, Row>,
    /// The number of the newest row of each key. One with older rows beside it was read by key again.
    newest: HashMap<Key, u64>,
    next_number: u64,
}

impl AtEngine {
    /// None yet.
    pub fn new(submitter: Submitter) -> Self {
        AtEngine {
            submitter,
            rows: HashMap::new(),
            newest: HashMap::new(),
            next_number: 0,
        }
    }

    /// Submits the text of a row; one that is not known is none.
    pub fn submit(&mut self, row: Row) {
        let Some(text) = row.source.text() else {
            return;
        };
        let number = self.number();
        self.submitter
            .submit(priority(&row), number, text.head().clone());
        self.newest.entry(row.key.clone()).or_insert(number);
        self.rows.insert(number, row);
    }

    /// Submits the text of a row that has just come in, in the place of an older one of the key. Returns the older row, of
    /// which no vector will come.
    pub fn submit_newest(&mut self, row: Row) -> Option<Row> {
        let text = row.source.text()?.head().clone();
        let number = self.number();
        let older = self.superseded_by(&row, &row.key);
        let replaced = older.filter(|older| {
            self.submitter
                .replace(*older, priority(&row), number, text.clone())
        });
        if older.is_none() {
            self.submitter.submit(priority(&row), number, text);
        }
        self.newest.insert(row.key.clone(), number);
        self.rows.insert(number, row);
        replaced.and_then(|older| self.rows.remove(&older))
    }

    /// Takes a row of this key back that `newer` makes needless. No vector of it will come.
    pub fn withdraw(&mut self, key: &Key, newer: &Row) -> Option<Row> {
        let older = self.superseded_by(newer, key)?;
        self.submitter.withdraw(older).then(|| self.take(older))?
    }

    /// The newest row of this key.
    pub fn newest(&mut self, key: &Key) -> Option<&mut Row> {
        self.rows.get_mut(self.newest.get(key)?)
    }

    /// Takes the row whose vector has come.
    pub fn take(&mut self, number: u64) -> Option<Row> {
        let row = self.rows.remove(&number)?;
        if self.newest.get(&row.key) == Some(&number) {
            self.newest.remove(&row.key);
        }
        Some(row)
    }

    /// All rows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    fn superseded_by(&self, newer: &Row, key: &Key) -> Option<u64> {
        let number = *self.newest.get(key)?;
        newer.supersedes(self.rows.get(&number)?).then_some(number)
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

fn priority(row: &Row) -> Priority {
    match row.ack {
        Ack::Live(_) => Priority::Live,
        Ack::Backfill(_) | Ack::None => Priority::Backfill,
    }
}
