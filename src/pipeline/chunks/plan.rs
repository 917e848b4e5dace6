//! Which of its stored passages a document keeps, which move, and which need a vector.
//!
//! ```text
//! stored    A B C D E          each letter is the fingerprint of a passage: of its text, wherever it stands
//! wanted    A X C D E F
//!             │       └ embedded: no stored passage has this text
//!             └ embedded
//!           A C D E: kept; those whose place in the text has changed are moved
//! ```
//!
//! A passage whose text stands at another number than before is copied: its row gets the vector of the row that has it.
//! Nothing is embedded twice because it has moved.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use md5::{Digest, Md5};
use uuid::Uuid;

use super::found::{Document, StoredPassage, StoredVersion};

/// What a changed passage takes in a write-back besides its text and vector, about: its document, number, place and
/// fingerprint.
const BYTES_OF_A_CHANGE: usize = 64;

/// A passage that a document should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPassage {
    /// Its place in the text, in bytes.
    pub bytes: Range<usize>,
    /// Its place in the text, in characters.
    pub span: (i32, i32),
    /// Which text its vector is of.
    pub fingerprint: Uuid,
}

/// Which stored vectors are taken for right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// None: all passages are embedded again.
    Nothing,
    /// Those with the fingerprint of a wanted passage.
    Fingerprints,
    /// Those without a fingerprint, too, beside the text of a wanted passage.
    Texts,
}

/// What has to be done to the passages of a document.
#[derive(Debug)]
pub struct Plan {
    /// The document; `None` for a row that is gone or has no text.
    pub document: Option<PlannedDocument>,
    /// The versions of the passage rows that this was made from.
    pub version: StoredVersion,
    /// The number of passages that the document has then. Those behind are deleted.
    pub passages: usize,
    /// The number of these; 1 where it is not known.
    pub deleted: usize,
    /// The rows that change, in order of their number.
    pub changes: Vec<Change>,
}

/// The document of a plan.
#[derive(Debug)]
pub struct PlannedDocument {
    /// Its text and fields.
    pub document: Arc<Document>,
    /// Its fingerprint, which the row must still have.
    pub fingerprint: Uuid,
}

/// A passage row that changes.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number in the document.
    pub seq: i32,
    /// What it is then.
    pub passage: WantedPassage,
    /// Where its vector is from.
    pub vector: VectorFrom,
}

/// Where the vector of a passage row is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorFrom {
    /// The row has it already.
    Itself {
        /// The row has its text already, too.
        same_text: bool,
    },
    /// The row with this number has it.
    Row(i32),
    /// It is yet to be computed.
    Engine,
}

impl Plan {
    /// The plan for a row that is gone or has no text.
    pub fn removal(version: StoredVersion) -> Plan {
        Plan {
            document: None,
            version,
            passages: 0,
            deleted: 1,
            changes: Vec::new(),
        }
    }

    /// The plan for a document with these passages, of which these are stored.
    pub fn new(
        document: PlannedDocument,
        wanted: Vec<WantedPassage>,
        stored: &[StoredPassage],
        version: StoredVersion,
        trust: Trust,
    ) -> Plan {
        let text = &document.document.text;
        let known = KnownVectors::new(stored, trust);
        let by_seq: HashMap<i32, &StoredPassage> =
            stored.iter().map(|stored| (stored.seq, stored)).collect();
        let passages = wanted.len();
        let changes = (0..).zip(wanted).filter_map(|(seq, passage)| {
            let chunk = md5(&text[passage.bytes.clone()]);
            let here = by_seq.get(&seq);
            let vector = match here {
                Some(here) if known.is_of(here, passage.fingerprint, chunk) => VectorFrom::Itself {
                    same_text: here.chunk == Some(chunk),
                },
                _ => known.find(passage.fingerprint, chunk),
            };
            let is_kept = here.is_some_and(|here| {
                vector == VectorFrom::Itself { same_text: true }
                    && here.span == Some(passage.span)
                    && here.fingerprint == Some(passage.fingerprint)
                    // The first passage says which document they all are of.
                    && here.document == (seq == 0).then_some(document.fingerprint)
            });
            (!is_kept).then_some(Change {
                seq,
                passage,
                vector,
            })
        });
        let changes = changes.collect();
        let behind = |stored: &&StoredPassage| {
            usize::try_from(stored.seq).map_or(true, |seq| seq >= passages)
        };
        Plan {
            deleted: stored.iter().filter(behind).count(),
            document: Some(document),
            version,
            passages,
            changes,
        }
    }

    /// Whether the passages are as they should be.
    pub fn is_done(&self) -> bool {
        self.changes.is_empty() && self.deleted == 0
    }

    /// What it adds to a write-back, in bytes, with vectors of this many dimensions.
    pub fn write_bytes(&self, dimensions: usize) -> usize {
        let change = |change: &Change| match change.vector {
            VectorFrom::Itself { same_text: true } => 0,
            VectorFrom::Itself { same_text: false } | VectorFrom::Row(_) => {
                change.passage.bytes.len()
            }
            VectorFrom::Engine => change.passage.bytes.len() + dimensions * size_of::<f32>(),
        };
        let changes: usize = self.changes.iter().map(change).sum();
        changes + self.changes.len() * BYTES_OF_A_CHANGE
    }

    /// The passages whose vectors are yet to be computed.
    pub fn to_embed(&self) -> impl Iterator<Item = &WantedPassage> {
        let changes = self.changes.iter();
        let embedded = changes.filter(|change| change.vector == VectorFrom::Engine);
        embedded.map(|change| &change.passage)
    }

    /// The text of a passage.
    pub fn chunk(&self, passage: &WantedPassage) -> &str {
        self.document
            .as_ref()
            .map_or("", |planned| &planned.document.text[passage.bytes.clone()])
    }

    /// Its memory, in bytes, with vectors of this many dimensions that it waits for.
    pub fn bytes(&self, dimensions: usize) -> usize {
        let document = self.document.as_ref();
        let text = document.map_or(0, |planned| planned.document.bytes());
        let embedded: usize = self
            .to_embed()
            .map(|passage| passage.bytes.len() + dimensions * size_of::<f32>())
            .sum();
        text + self.changes.len() * size_of::<Change>() + embedded
    }
}

/// Which vectors the stored passages have.
struct KnownVectors {
    by_fingerprint: HashMap<Uuid, i32>,
    /// Of vectors of which nothing is known: by the text beside them.
    by_chunk: HashMap<Uuid, i32>,
    trust: Trust,
}

impl KnownVectors {
    fn new(stored: &[StoredPassage], trust: Trust) -> Self {
        let by_fingerprint = stored
            .iter()
            .filter(|_| trust != Trust::Nothing)
            .filter_map(|stored| Some((stored.fingerprint?, stored.seq)));
        let unknown = stored.iter().filter(|stored| {
            trust == Trust::Texts && stored.has_vector && stored.fingerprint.is_none()
        });
        KnownVectors {
            by_fingerprint: by_fingerprint.collect(),
            by_chunk: unknown
                .filter_map(|stored| Some((stored.chunk?, stored.seq)))
                .collect(),
            trust,
        }
    }

    /// Whether the vector of a stored passage is that of the text `chunk`, whose fingerprint this is.
    fn is_of(&self, stored: &StoredPassage, fingerprint: Uuid, chunk: Uuid) -> bool {
        match stored.fingerprint {
            Some(found) => self.trust != Trust::Nothing && found == fingerprint,
            None => self.trust == Trust::Texts && stored.has_vector && stored.chunk == Some(chunk),
        }
    }

    fn find(&self, fingerprint: Uuid, chunk: Uuid) -> VectorFrom {
        let known = self.by_fingerprint.get(&fingerprint);
        let known = known.or_else(|| self.by_chunk.get(&chunk));
        known.map_or(VectorFrom::Engine, |seq| VectorFrom::Row(*seq))
    }
}

/// The md5 of a text, as the statement that reads passages computes it.
fn md5(text: &str) -> Uuid {
    Uuid::from_bytes(Md5::digest(text.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(text: &str) -> Uuid {
        md5(&format!("model\n{text}"))
    }

    /// The passages of a text of words, each a passage.
    fn wanted(text: &str) -> Vec<WantedPassage> {
        let mut begin = 0;
        let passage = |word: &str| {
            let bytes = begin..begin + word.len();
            begin = bytes.end + 1;
            WantedPassage {
                span: (bytes.start as i32, bytes.end as i32),
                bytes,
                fingerprint: fingerprint(word),
            }
        };
        text.split(' ').map(passage).collect()
    }

    fn planned(text: &str) -> PlannedDocument {
        PlannedDocument {
            document: Arc::new(Document {
                text: text.into(),
                values: Vec::new(),
            }),
            fingerprint: fingerprint(text),
        }
    }

    fn stored(text: &str) -> Vec<StoredPassage> {
        let words = wanted(text);
        let passage = |(seq, passage): (i32, WantedPassage)| StoredPassage {
            seq,
            span: Some(passage.span),
            fingerprint: Some(passage.fingerprint),
            chunk: Some(md5(&text[passage.bytes])),
            has_vector: true,
            document: (seq == 0).then(|| fingerprint(text)),
        };
        (0..).zip(words).map(passage).collect()
    }

    /// What changes of the stored passages when a document gets the text `after`: each number with where its vector is
    /// from.
    fn changes(stored: &[StoredPassage], after: &str, trust: Trust) -> Vec<(i32, VectorFrom)> {
        let version = StoredVersion(None);
        let plan = Plan::new(planned(after), wanted(after), stored, version, trust);
        let changes = plan.changes.iter();
        changes.map(|change| (change.seq, change.vector)).collect()
    }

    const SAME: VectorFrom = VectorFrom::Itself { same_text: true };

    #[test]
    fn an_edit_embeds_the_passages_that_it_touches_and_moves_those_behind() {
        let before = stored("one two three four");
        assert_eq!(
            changes(&before, "one 2 three four", Trust::Fingerprints),
            [(0, SAME), (1, VectorFrom::Engine), (2, SAME), (3, SAME)]
        );
        // Of the same length: nothing behind it moves.
        assert_eq!(
            changes(&before, "one TWO three four", Trust::Fingerprints),
            [(0, SAME), (1, VectorFrom::Engine)]
        );
    }

    #[test]
    fn an_insert_at_the_beginning_copies_what_it_renumbers() {
        assert_eq!(
            changes(&stored("one two"), "zero one two", Trust::Fingerprints),
            [
                (0, VectorFrom::Engine),
                (1, VectorFrom::Row(0)),
                (2, VectorFrom::Row(1))
            ]
        );
        assert_eq!(
            changes(&stored("one two"), "two one", Trust::Fingerprints),
            [(0, VectorFrom::Row(1)), (1, VectorFrom::Row(0))]
        );
    }

    #[test]
    fn a_vector_without_a_fingerprint_counts_only_where_it_is_trusted() {
        let mut before = stored("one two");
        before.iter_mut().for_each(|passage| {
            passage.fingerprint = None;
            passage.span = None;
        });
        let engine = VectorFrom::Engine;
        assert_eq!(
            changes(&before, "one two", Trust::Fingerprints),
            [(0, engine), (1, engine)]
        );
        assert_eq!(
            changes(&before, "one two", Trust::Texts),
            [(0, SAME), (1, SAME)]
        );
        let first = VectorFrom::Row(0);
        assert_eq!(
            changes(&before, "zero one", Trust::Texts),
            [(0, engine), (1, first)]
        );
        before[0].has_vector = false;
        assert_eq!(
            changes(&before, "one two", Trust::Texts),
            [(0, engine), (1, SAME)]
        );
    }

    #[test]
    fn nothing_is_done_where_the_passages_are_those_of_the_document() {
        let done = |before: &str, after: &str, trust| {
            let (document, wanted) = (planned(after), wanted(after));
            Plan::new(
                document,
                wanted,
                &stored(before),
                StoredVersion(None),
                trust,
            )
            .is_done()
        };
        assert!(done("one two", "one two", Trust::Fingerprints));
        assert!(!done("one two", "one two", Trust::Nothing));
        assert!(!done("one two", "one", Trust::Fingerprints));
        let mut lost = stored("one two");
        lost[0].document = None;
        assert_eq!(changes(&lost, "one two", Trust::Fingerprints), [(0, SAME)]);
        let all = changes(&stored("one two"), "one two", Trust::Nothing);
        assert_eq!(all, [(0, VectorFrom::Engine), (1, VectorFrom::Engine)]);
    }
}
