//! Rows that are ready to be written, and the batches that are cut out of them.

use std::collections::{HashSet, VecDeque};

use crate::pipeline::table::row::Row;
use crate::pipeline::write::writer::EmbeddedRow;

/// Texts travel with a write-back as its guard; past this many bytes a batch is full.
const BATCH_BYTES: usize = 4 << 20;

/// A row ready to be written, and how often that was tried.
pub struct Pending {
    pub embedded: EmbeddedRow,
    pub attempts: u32,
    /// How often the statement that it was in failed with an error that may pass.
    pub errors: u32,
}

impl Pending {
    /// `None` clears the destination.
    pub fn new(row: Row, vector: Option<Vec<f32>>) -> Self {
        Pending {
            embedded: EmbeddedRow { row, vector },
            attempts: 0,
            errors: 0,
        }
    }
}

/// Rows of one job that are ready, in the order in which they became so.
#[derive(Default)]
pub struct WriteQueue {
    live: VecDeque<Pending>,
    backfill: VecDeque<Pending>,
}

impl WriteQueue {
    pub fn push(&mut self, pending: Pending) {
        self.line(&pending).push_back(pending);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.live.iter().chain(&self.backfill)
    }

    /// Takes at most so many rows, live ones first, and no more than some megabytes of texts. One statement updates a row
    /// once, so a key that occurs twice waits for the next batch.
    pub fn next_batch(&mut self, rows: usize) -> Vec<Pending> {
        let mut keys = HashSet::new();
        let mut batch: Vec<Pending> = Vec::new();
        let mut again = Vec::new();
        let mut bytes = 0;
        while batch.len() < rows && bytes < BATCH_BYTES {
            let next = self.live.pop_front().or_else(|| self.backfill.pop_front());
            let Some(pending) = next else {
                break;
            };
            if keys.insert(pending.embedded.row.key.clone()) {
                // Not what the row was counted with: a text that was read by key is not in that.
                let row = &pending.embedded.row;
                bytes += row.key.bytes() + row.source.bytes();
                batch.push(pending);
            } else {
                again.push(pending);
            }
        }
        for pending in again.into_iter().rev() {
            self.line(&pending).push_front(pending);
        }
        batch
    }

    fn line(&mut self, pending: &Pending) -> &mut VecDeque<Pending> {
        if pending.embedded.row.is_live() {
            &mut self.live
        } else {
            &mut self.backfill
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::table::row::{Key, SourceText, SubscriberId};
    use crate::replication::{Lsn, LsnTracker};

    fn row(key: &str, text: &str, live: bool) -> Pending {
        let (key, source) = (Key::new([key.into()]), SourceText::Text(text.into()));
        let row = match live {
            true => {
                let ticket = LsnTracker::new(Lsn::ZERO).begin();
                Row::live(key, source, 1, ticket, SubscriberId(0))
            }
            false => Row::backfill(key, source),
        };
        Pending::new(row, Some(vec![0.0]))
    }

    fn keys(batch: &[Pending]) -> Vec<&str> {
        batch
            .iter()
            .map(|pending| pending.embedded.row.key.part(0))
            .collect()
    }

    #[test]
    fn live_rows_go_first_and_a_key_twice_waits_for_the_next_batch_in_its_place() {
        let mut ready = WriteQueue::default();
        ready.push(row("old", "a", false));
        ready.push(row("1", "first", true));
        ready.push(row("1", "second", true));
        ready.push(row("2", "b", true));
        ready.push(row("1", "third", true));
        assert_eq!(keys(&ready.next_batch(512)), ["1", "2", "old"]);
        let second = ready.next_batch(512);
        assert_eq!(keys(&second), ["1"]);
        assert_eq!(
            second[0].embedded.row.source,
            SourceText::Text("second".into())
        );
        assert_eq!(ready.iter().count(), 1);
    }

    #[test]
    fn a_batch_ends_at_its_rows_or_at_its_bytes() {
        let mut ready = WriteQueue::default();
        for number in 0..5 {
            ready.push(row(&number.to_string(), "short", true));
        }
        assert_eq!(ready.next_batch(3).len(), 3);
        let long = "x".repeat(BATCH_BYTES / 2);
        for number in 5..9 {
            ready.push(row(&number.to_string(), &long, true));
        }
        assert_eq!(keys(&ready.next_batch(512)), ["3", "4", "5", "6"]);
        assert_eq!(keys(&ready.next_batch(512)), ["7", "8"]);
        assert!(ready.next_batch(512).is_empty());
    }
}
