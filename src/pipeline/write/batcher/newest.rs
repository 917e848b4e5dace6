//! How a new row of a key takes the place of older ones: only the newest text of a row is embedded.

use super::Batcher;
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Key, Row, SourceText};
use crate::pipeline::table::write_back_marker::MAX_CASCADE_DEPTH;

impl Batcher {
    /// Sends a row that has just come in on its way. Rows of its key that wait for their vector, or to be read, are
    /// superseded.
    pub(super) async fn admit_newest(&mut self, mut row: Row) -> Result<(), JobError> {
        if row.cascade_depth > MAX_CASCADE_DEPTH {
            return self.admit(row);
        }
        if let Some(before) = row.moved_from.take() {
            for older in self.withdraw(&before, &row) {
                self.finish_superseded(&mut row, older).await;
            }
        }
        if !row.is_live() {
            match self.absorb(row) {
                Some(scanned) => row = scanned,
                None => return Ok(()),
            }
        }
        for older in self.withdraw_elsewhere(&row) {
            self.finish_superseded(&mut row, older).await;
        }
        let key = row.key.clone();
        let owed = match &row.source {
            SourceText::Text(_) => {
                let older = self.at_engine.submit_newest(row);
                older.and_then(|older| self.at_engine.newest(&key)?.take_over(older))
            }
            SourceText::Unread | SourceText::Truncated => {
                let older = self.unread.push_newest(row);
                older.and_then(|older| self.unread.newest(&key)?.take_over(older))
            }
            SourceText::Empty => return self.admit(row),
        };
        if let Some(ack) = owed {
            self.finish_live(ack).await;
        }
        Ok(())
    }

    /// Lets a change of the row, which came before, stand for the scanned row; returns the row where there is none.
    fn absorb(&mut self, scanned: Row) -> Option<Row> {
        match self.newest(&scanned.key.clone()) {
            Some(newest) => newest.absorb(scanned),
            None => Some(scanned),
        }
    }

    /// The newest row of this key that waits for its vector, or to be read.
    fn newest(&mut self, key: &Key) -> Option<&mut Row> {
        match self.at_engine.newest(key) {
            Some(row) => Some(row),
            None => self.unread.newest(key),
        }
    }

    fn withdraw(&mut self, key: &Key, newer: &Row) -> impl Iterator<Item = Row> + use<> {
        let at_engine = self.at_engine.withdraw(key, newer);
        at_engine
            .into_iter()
            .chain(self.unread.withdraw(key, newer))
    }

    /// Takes back what `newer` supersedes and does not take the place of.
    fn withdraw_elsewhere(&mut self, newer: &Row) -> impl Iterator<Item = Row> + use<> {
        let key = &newer.key;
        let at_engine = match newer.source {
            SourceText::Text(_) => None,
            SourceText::Empty | SourceText::Unread | SourceText::Truncated => {
                self.at_engine.withdraw(key, newer)
            }
        };
        let unread = match newer.source {
            SourceText::Unread | SourceText::Truncated => None,
            SourceText::Empty | SourceText::Text(_) => self.unread.withdraw(key, newer),
        };
        at_engine.into_iter().chain(unread)
    }

    async fn finish_superseded(&mut self, newer: &mut Row, older: Row) {
        self.counters.rows_superseded.add(1);
        if let Some(ack) = newer.take_over(older) {
            self.finish_live(ack).await;
        }
    }
}
