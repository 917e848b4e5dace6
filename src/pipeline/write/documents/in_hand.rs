//! All documents that are on their way: one for each key, with the lines that they wait in and the memory that they take.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::document::{Document, Stage, Turn};
use crate::pipeline::table::row::{Key, LiveAck, Row};

/// What a document can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// To be read.
    Unread,
    /// To be cut.
    Uncut,
    /// For passages to be submitted.
    Embedding,
    /// To be written.
    Ready,
}

/// See the [module](self).
pub struct InHand {
    documents: HashMap<Key, Document>,
    lines: [BTreeMap<Turn, Key>; 4],
    /// Documents that go on later, by time and turn.
    paused: BTreeMap<(Instant, Turn), Key>,
    /// Dimensions of the vectors.
    dimensions: usize,
    /// The memory of all documents, in bytes.
    bytes: usize,
    admitted: u64,
}

impl InHand {
    /// None yet. Vectors have this many dimensions.
    pub fn new(dimensions: usize) -> Self {
        InHand {
            documents: HashMap::new(),
            lines: Default::default(),
            paused: BTreeMap::new(),
            dimensions,
            bytes: 0,
            admitted: 0,
        }
    }

    /// Takes a change in. Returns the receipt that can go out because of it.
    pub fn admit(&mut self, row: Row) -> Option<LiveAck> {
        let key = row.key.clone();
        let Some(mut document) = self.remove(&key) else {
            self.admitted += 1;
            self.put(Document::new(row, self.admitted));
            return None;
        };
        let owed = document.join(row);
        if document.can_be_read_again() {
            document.stage = Stage::Unread;
        } else if !matches!(document.stage, Stage::Unread) {
            document.is_outdated = true;
        }
        self.put(document);
        owed
    }

    /// The document with this key.
    pub fn get(&self, key: &Key) -> Option<&Document> {
        self.documents.get(key)
    }

    /// Takes a document out, in order to change it and [`put`](Self::put) it back, or because it is finished.
    pub fn remove(&mut self, key: &Key) -> Option<Document> {
        let document = self.documents.remove(key)?;
        self.bytes -= document.bytes;
        match (line(&document.stage), &document.stage) {
            (Some(line), _) => drop(self.lines[line as usize].remove(&document.turn)),
            (None, Stage::Paused(due, _)) => drop(self.paused.remove(&(*due, document.turn))),
            (None, _) => {}
        }
        Some(document)
    }

    /// Puts a document into the line of its stage.
    pub fn put(&mut self, mut document: Document) {
        let key = document.row.key.clone();
        if let Some(bytes) = document.memory(self.dimensions) {
            document.bytes = bytes;
        }
        self.bytes += document.bytes;
        match (line(&document.stage), &document.stage) {
            (Some(line), _) => drop(self.lines[line as usize].insert(document.turn, key.clone())),
            (None, Stage::Paused(due, _)) => {
                drop(self.paused.insert((*due, document.turn), key.clone()));
            }
            (None, _) => {}
        }
        self.documents.insert(key, document);
    }

    /// The documents in a line, in the order of their turns.
    pub fn line(&self, line: Line) -> impl Iterator<Item = &Document> {
        let keys = self.lines[line as usize].values();
        keys.filter_map(|key| self.documents.get(key))
    }

    /// Whether there is none in a line.
    pub fn is_empty(&self, line: Line) -> bool {
        self.lines[line as usize].is_empty()
    }

    /// The memory that all of them take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits until a paused document is due, for ever while there is none. Cancellation safe: nothing is taken.
    pub async fn until_due(&self) {
        match self.paused.first_key_value() {
            Some(((due, _), _)) => tokio::time::sleep_until(*due).await,
            None => std::future::pending().await,
        }
    }

    /// Lets the documents go on that are due.
    pub fn wake_due(&mut self, now: Instant) {
        while let Some(((due, _), key)) = self.paused.first_key_value() {
            if *due > now {
                return;
            }
            let key = key.clone();
            let Some(mut document) = self.remove(&key) else {
                return;
            };
            document.stage = match document.stage {
                Stage::Paused(_, Some(plan)) => Stage::Ready(plan),
                _ => Stage::Unread,
            };
            self.put(document);
        }
    }
}

fn line(stage: &Stage) -> Option<Line> {
    match stage {
        Stage::Unread => Some(Line::Unread),
        Stage::Uncut(_) => Some(Line::Uncut),
        Stage::Embedding(embedding) if !embedding.unsubmitted.is_empty() => Some(Line::Embedding),
        Stage::Ready(_) => Some(Line::Ready),
        Stage::Embedding(_)
        | Stage::Reading
        | Stage::Cutting
        | Stage::Writing
        | Stage::Paused(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pipeline::table::row::SourceText;

    fn scanned(key: &str) -> Row {
        Row::backfill(Key::new([key.into()]), SourceText::Unread)
    }

    fn waiting(in_hand: &InHand) -> Vec<String> {
        let line = in_hand.line(Line::Unread);
        line.map(|document| document.row.key.to_string()).collect()
    }

    fn set_stage(in_hand: &mut InHand, key: &str, stage: Stage) {
        let mut document = in_hand.remove(&Key::new([key.into()])).expect("a document");
        document.stage = stage;
        in_hand.put(document);
    }

    #[test]
    fn a_document_keeps_its_turn_when_it_is_read_again() {
        let mut in_hand = InHand::new(1);
        for key in ["1", "2", "3"] {
            in_hand.admit(scanned(key));
        }
        in_hand.admit(scanned("1"));
        assert_eq!(waiting(&in_hand), ["(1)", "(2)", "(3)"]);
        set_stage(&mut in_hand, "1", Stage::Reading);
        assert_eq!(waiting(&in_hand), ["(2)", "(3)"]);
        in_hand.admit(scanned("1"));
        assert_eq!(waiting(&in_hand), ["(2)", "(3)"]);
        assert!(
            in_hand
                .get(&Key::new(["1".into()]))
                .is_some_and(|document| document.is_outdated)
        );
        set_stage(&mut in_hand, "1", Stage::Unread);
        assert_eq!(waiting(&in_hand), ["(1)", "(2)", "(3)"]);
    }

    #[tokio::test]
    async fn a_paused_document_goes_on_when_it_is_due_or_changes_again() {
        let mut in_hand = InHand::new(1);
        let now = Instant::now();
        for key in ["1", "2"] {
            in_hand.admit(scanned(key));
            set_stage(
                &mut in_hand,
                key,
                Stage::Paused(now + Duration::from_secs(9), None),
            );
        }
        in_hand.wake_due(now);
        assert!(waiting(&in_hand).is_empty());
        in_hand.admit(scanned("2"));
        assert_eq!(waiting(&in_hand), ["(2)"]);
        in_hand.wake_due(now + Duration::from_secs(9));
        assert_eq!(waiting(&in_hand), ["(1)", "(2)"]);
        assert_eq!(in_hand.bytes(), 0);
    }
}
