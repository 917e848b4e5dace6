//! Rows that wait for a write-back: those that can be written now, and those that are retried later.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::pause_after;
use crate::pipeline::table::row::Row;
use crate::pipeline::write::failed_batch::Conflicts;
use crate::pipeline::write::outcome::EmbeddedRow;

/// The shortest and the longest pause before a row is retried.
const MIN_BACKOFF: Duration = Duration::from_millis(2);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// When a batch is full: at this many rows, or with the row that reaches this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// 1 or more.
    pub rows: usize,
    /// Of keys, texts and vectors.
    pub bytes: usize,
}

/// A row that waits for a write-back.
pub struct PendingWrite {
    /// The row with its vector.
    pub embedded: EmbeddedRow,
    /// How often it has been retried since it came in.
    retries: u32,
    /// Conflicts that ended a statement that it was in.
    pub conflicts: Conflicts,
    /// How often a write-back found the row with another text.
    pub misses: u32,
}

impl PendingWrite {
    /// A row that was not tried yet. `None` clears the destination.
    pub fn new(row: Row, vector: Option<Vec<f32>>) -> Self {
        PendingWrite {
            embedded: EmbeddedRow { row, vector },
            retries: 0,
            conflicts: Conflicts::default(),
            misses: 0,
        }
    }

    /// Whether it has been retried for a second or longer.
    pub fn is_retried_often(&self) -> bool {
        self.retries > 8
    }

    /// What it adds to a write-back, in bytes: the text travels as the guard, and a vector has 4 bytes a dimension.
    pub fn bytes(&self) -> usize {
        let vector = self.embedded.vector.as_ref().map_or(0, Vec::len);
        self.row().key.bytes() + self.row().source.bytes() + vector * size_of::<f32>()
    }

    fn row(&self) -> &Row {
        &self.embedded.row
    }
}

/// Rows of one job that can be written, in the order in which they came. Live rows go before those of a scan.
#[derive(Default)]
pub struct WriteQueue {
    live: VecDeque<PendingWrite>,
    backfill: VecDeque<PendingWrite>,
    /// Of all rows, in bytes.
    bytes: usize,
}

impl WriteQueue {
    /// Adds a row at the end of its line.
    pub fn push(&mut self, pending: PendingWrite) {
        self.bytes += pending.bytes();
        self.line(&pending).push_back(pending);
    }

    /// All rows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &PendingWrite> {
        self.live.iter().chain(&self.backfill)
    }

    /// Whether the rows fill a batch.
    pub fn fills(&self, limit: BatchLimit) -> bool {
        self.live.len() + self.backfill.len() >= limit.rows || self.bytes >= limit.bytes
    }

    /// Takes at most as many rows as the limit says, and ends with the row that reaches its bytes. Empty where the queue
    /// is.
    ///
    /// One statement can update a row once only, so a key that occurs twice waits for the next batch, in its place. A
    /// batch has rows of one cascade depth.
    pub fn next_batch(&mut self, limit: BatchLimit) -> Vec<PendingWrite> {
        let mut keys = HashSet::new();
        let mut batch: Vec<PendingWrite> = Vec::new();
        let mut left = Vec::new();
        let mut bytes = 0;
        while batch.len() < limit.rows && bytes < limit.bytes {
            let next = self.live.pop_front().or_else(|| self.backfill.pop_front());
            let Some(pending) = next else {
                break;
            };
            let depth = batch.first().map(|first| first.row().cascade_depth);
            let fits = depth.is_none_or(|depth| depth == pending.row().cascade_depth);
            if fits && keys.insert(pending.row().key.clone()) {
                bytes += pending.bytes();
                batch.push(pending);
            } else {
                // A later change of this key must not overtake this one.
                keys.insert(pending.row().key.clone());
                left.push(pending);
            }
        }
        self.bytes -= bytes;
        for pending in left.into_iter().rev() {
            self.line(&pending).push_front(pending);
        }
        batch
    }

    fn line(&mut self, pending: &PendingWrite) -> &mut VecDeque<PendingWrite> {
        if pending.row().is_live() {
            &mut self.live
        } else {
            &mut self.backfill
        }
    }
}

/// Rows that are retried after a pause: they were locked, or their change was not visible yet.
#[derive(Default)]
pub struct RetryQueue {
    waiting: BinaryHeap<DelayedWrite>,
    /// Tells apart rows that are due at the same moment.
    pushed: u64,
}

impl RetryQueue {
    /// Adds rows. Each is due after a pause that doubles with each of its retries. Those that are retried as often as each
    /// other are due together, so that a batch which was refused is a batch again.
    pub fn push_all(&mut self, rows: impl IntoIterator<Item = PendingWrite>) {
        let now = Instant::now();
        let mut pauses = HashMap::new();
        for mut pending in rows {
            let pause = pauses
                .entry(pending.retries)
                .or_insert_with_key(|&retries| pause_after(retries, MIN_BACKOFF, MAX_BACKOFF));
            pending.retries += 1;
            self.pushed += 1;
            self.waiting.push(DelayedWrite {
                due: now + *pause,
                number: self.pushed,
                pending,
            });
        }
    }

    /// All rows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &PendingWrite> {
        self.waiting.iter().map(|waiting| &waiting.pending)
    }

    /// Waits until a row is due, for ever while there is none. Cancellation safe: nothing is taken.
    pub async fn until_due(&self) {
        match self.waiting.peek() {
            Some(first) => tokio::time::sleep_until(first.due).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the next row that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<PendingWrite> {
        if self.waiting.peek()?.due > now {
            return None;
        }
        self.waiting.pop().map(|waiting| waiting.pending)
    }
}

/// A row in the heap, which has its greatest element on top: that is the one which is due first.
struct DelayedWrite {
    due: Instant,
    number: u64,
    pending: PendingWrite,
}

impl Ord for DelayedWrite {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for DelayedWrite {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for DelayedWrite {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for DelayedWrite {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::table::row::{Key, SourceText, SubscriberId};
    use crate::replication::{Lsn, LsnTracker};

    fn row(key: &str, text: &str, live: bool) -> PendingWrite {
        let (key, source) = (Key::new([key.into()]), SourceText::from_column(Some(text)));
        let row = match live {
            true => {
                let ticket = LsnTracker::new(Lsn::ZERO).begin();
                Row::live(key, source, 1, ticket, SubscriberId::unique())
            }
            false => Row::backfill(key, source),
        };
        PendingWrite::new(row, Some(vec![0.0]))
    }

    /// A limit of rows alone.
    fn rows(rows: usize) -> BatchLimit {
        BatchLimit {
            rows,
            bytes: usize::MAX,
        }
    }

    fn keys(batch: &[PendingWrite]) -> Vec<&str> {
        batch
            .iter()
            .map(|pending| pending.row().key.part(0))
            .collect()
    }

    #[test]
    fn live_rows_go_first_and_a_key_that_occurs_twice_waits_for_the_next_batch_in_its_place() {
        let mut queue = WriteQueue::default();
        queue.push(row("old", "a", false));
        queue.push(row("1", "first", true));
        queue.push(row("1", "second", true));
        queue.push(row("2", "b", true));
        queue.push(row("1", "third", true));
        assert_eq!(keys(&queue.next_batch(rows(512))), ["1", "2", "old"]);
        let second = queue.next_batch(rows(512));
        assert_eq!(keys(&second), ["1"]);
        assert_eq!(
            second[0].row().source,
            SourceText::from_column(Some("second"))
        );
        assert_eq!(queue.iter().count(), 1);
    }

    #[test]
    fn a_batch_ends_at_its_rows_or_at_its_bytes() {
        let mut queue = WriteQueue::default();
        for number in 0..5 {
            queue.push(row(&number.to_string(), "short", true));
        }
        assert_eq!(queue.next_batch(rows(3)).len(), 3);
        let limit = BatchLimit {
            rows: 512,
            bytes: 2000,
        };
        let long = "x".repeat(limit.bytes / 2);
        for number in 5..9 {
            queue.push(row(&number.to_string(), &long, true));
        }
        assert!(queue.fills(limit));
        assert_eq!(keys(&queue.next_batch(limit)), ["3", "4", "5", "6"]);
        assert_eq!(keys(&queue.next_batch(limit)), ["7", "8"]);
        assert!(queue.next_batch(limit).is_empty());
        assert!(!queue.fills(limit));
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_batch_has_rows_of_one_cascade_depth_and_keeps_the_order_of_each_key() {
        let mut queue = WriteQueue::default();
        let mut by_trigger = row("2", "b", true);
        by_trigger.embedded.row.cascade_depth = 1;
        queue.push(row("1", "a", true));
        queue.push(by_trigger);
        queue.push(row("2", "c", true));
        queue.push(row("3", "d", true));
        assert_eq!(keys(&queue.next_batch(rows(512))), ["1", "3"]);
        let second = queue.next_batch(rows(512));
        assert_eq!(second[0].row().source, SourceText::from_column(Some("b")));
        assert_eq!(keys(&queue.next_batch(rows(512))), ["2"]);
    }

    #[test]
    fn a_row_is_due_after_a_pause_that_grows_with_its_retries() {
        let mut queue = RetryQueue::default();
        let mut often_retried = row("often", "a", true);
        often_retried.retries = 20;
        queue.push_all([often_retried, row("first", "b", true)]);
        let due_within = |queue: &mut RetryQueue, time| {
            let pending = queue.pop_due(Instant::now() + time);
            pending.map(|pending| pending.row().key.part(0).to_owned())
        };
        assert_eq!(
            due_within(&mut queue, MIN_BACKOFF).as_deref(),
            Some("first")
        );
        assert_eq!(due_within(&mut queue, MAX_BACKOFF / 4), None);
        assert_eq!(queue.iter().count(), 1);
        assert_eq!(
            due_within(&mut queue, MAX_BACKOFF).as_deref(),
            Some("often")
        );
        assert_eq!(due_within(&mut queue, MAX_BACKOFF), None);
    }

    #[test]
    fn the_rows_of_a_refused_batch_are_due_together() {
        let mut queue = RetryQueue::default();
        queue.push_all((0..100).map(|number| row(&number.to_string(), "a", true)));
        let first = queue.waiting.peek().expect("100 rows").due;
        while queue.pop_due(first).is_some() {}
        assert_eq!(queue.iter().count(), 0);
    }
}
