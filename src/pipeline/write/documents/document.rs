//! A document on its way to its passages.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::time::Instant;
use uuid::Uuid;

use crate::pipeline::chunks::found::FoundDocument;
use crate::pipeline::chunks::plan::{Plan, WantedPassage};
use crate::pipeline::table::row::{Ack, LiveAck, Row};
use crate::pipeline::write::failed_batch::Conflicts;

/// The order in which documents get their turn: those that changed before those of a scan, then as they came.
pub type Turn = (bool, u64);

/// A document with the changes that it stands for.
pub struct Document {
    /// The newest change, with the receipts that are owed. Its text is never known.
    pub row: Row,
    /// How far the document has come.
    pub stage: Stage,
    /// A change came after the last reading had begun: what was read may be older.
    pub is_outdated: bool,
    /// Vectors that were computed for it, by the fingerprints of their passages. They outlive a second reading.
    pub vectors: HashMap<Uuid, Vec<f32>>,
    /// How often it has been retried since it came in.
    pub retries: u32,
    /// Conflicts of its write-backs.
    pub conflicts: Conflicts,
    /// How often a write-back found the row with another text.
    pub misses: u32,
    /// The size of its text, where that did not fit into a reading.
    pub size: usize,
    /// When it gets its turn.
    pub turn: Turn,
    /// What it was counted with.
    pub(super) bytes: usize,
}

/// How far a document has come.
pub enum Stage {
    /// It waits to be read.
    Unread,
    /// It is being read.
    Reading,
    /// It waits to be cut.
    Uncut(FoundDocument),
    /// It is being cut.
    Cutting,
    /// Some of its passages have no vector yet.
    Embedding(Embedding),
    /// It can be written.
    Ready(Plan),
    /// It is being written, or waits as a part of a batch that was refused.
    Writing,
    /// It goes on at a certain time: it is read again, or written where there is a plan.
    Paused(Instant, Option<Plan>),
}

/// A plan whose vectors are not complete.
pub struct Embedding {
    /// The plan.
    pub plan: Plan,
    /// Passages that were not submitted yet, each text once.
    pub unsubmitted: VecDeque<WantedPassage>,
    /// The fingerprints of those without a vector.
    pub awaited: HashSet<Uuid>,
}

impl Document {
    /// A document for this change.
    pub fn new(row: Row, number: u64) -> Document {
        Document {
            turn: (!row.is_live(), number),
            row,
            stage: Stage::Unread,
            is_outdated: false,
            vectors: HashMap::new(),
            retries: 0,
            conflicts: Conflicts::default(),
            misses: 0,
            size: 0,
            bytes: 0,
        }
    }

    /// Takes over a newer change of the same key; returns the receipt that can go out now.
    ///
    /// A scanned row joins the change that is here, because it may be older. A cascade of write-backs keeps its depth, or
    /// it would not end where users change the row all the time.
    pub fn join(&mut self, newer: Row) -> Option<LiveAck> {
        let depth = self.row.cascade_depth.max(newer.cascade_depth);
        let owed = if newer.is_live() || !self.row.is_live() {
            let older = std::mem::replace(&mut self.row, newer);
            self.row.take_over(older)
        } else {
            self.row.absorbed.extend(newer.absorbed);
            if let Ack::Backfill(ack) = newer.ack {
                self.row.absorbed.push(ack);
            }
            None
        };
        self.row.cascade_depth = depth;
        self.turn.0 &= !self.row.is_live();
        owed
    }

    /// Whether a newer change means that the document has to be read again, now.
    ///
    /// What is under way goes on: its end brings the document back.
    pub fn can_be_read_again(&self) -> bool {
        match self.stage {
            Stage::Uncut(_) | Stage::Embedding(_) | Stage::Ready(_) | Stage::Paused(..) => true,
            Stage::Unread | Stage::Reading | Stage::Cutting | Stage::Writing => false,
        }
    }

    /// The memory that it takes, in bytes; `None` while another task has some of it.
    pub fn memory(&self, dimensions: usize) -> Option<usize> {
        let vector = dimensions * size_of::<f32>() + size_of::<(Uuid, Vec<f32>)>();
        let vectors = self.vectors.len() * vector;
        let plan = match &self.stage {
            Stage::Unread | Stage::Reading | Stage::Paused(_, None) => 0,
            Stage::Uncut(found) => found.document.bytes() + size_of_val(&found.stored[..]),
            Stage::Embedding(embedding) => embedding.plan.bytes(dimensions),
            // The vectors that it waits for are here, and part of the plan.
            Stage::Ready(plan) | Stage::Paused(_, Some(plan)) => {
                return Some(plan.bytes(dimensions));
            }
            Stage::Cutting | Stage::Writing => return None,
        };
        Some(vectors + plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::table::row::{Key, SourceText, SubscriberId};
    use crate::replication::{Lsn, LsnTracker};

    fn key() -> Key {
        Key::new(["1".into()])
    }

    fn live(depth: u8) -> Row {
        let ticket = LsnTracker::new(Lsn::ZERO).begin();
        Row {
            cascade_depth: depth,
            ..Row::live(key(), SourceText::Unread, 7, ticket, SubscriberId::unique())
        }
    }

    fn scanned() -> Row {
        Row::backfill(key(), SourceText::Unread)
    }

    #[test]
    fn a_newer_change_takes_the_place_of_the_older_one_and_keeps_the_depth_of_its_cascade() {
        let mut document = Document::new(live(2), 1);
        let older = document.row.ack;
        let owed = document.join(live(0));
        assert_eq!(owed.map(Ack::Live), Some(older));
        assert_eq!(document.row.cascade_depth, 2);
    }

    #[test]
    fn a_scanned_row_joins_a_change_and_its_receipt_waits() {
        let mut document = Document::new(live(0), 1);
        assert_eq!(document.join(scanned()), None);
        assert!(document.row.is_live());
        assert_eq!(document.row.absorbed.len(), 1);

        let mut document = Document::new(scanned(), 2);
        assert!(document.turn.0);
        assert_eq!(document.join(live(0)), None);
        assert!(document.row.is_live() && !document.turn.0);
        assert_eq!(document.row.absorbed.len(), 1);
    }
}
