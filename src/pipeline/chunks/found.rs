//! A document as it was read: its text and fields, and the passages that are stored for it.

use std::sync::Arc;

use uuid::Uuid;

/// What a reading by key has found.
#[derive(Debug)]
pub enum Found {
    /// The passages are those of the row, or there are none and none are wanted: there is nothing to do.
    Current,
    /// The change was streamed before its commit became visible: what is there now may be the row as it was before.
    NotYetVisible,
    /// The row is gone or has no text, and there are passages.
    Leftover(StoredVersion),
    /// The text has this many bytes, which did not fit into the reading.
    Postponed(usize),
    /// The text has this many bytes: more than the job cuts.
    TooLarge(usize),
    /// A text whose passages are not there, or are those of another one.
    Changed(FoundDocument),
}

/// A document, read in one snapshot with its passages.
#[derive(Debug)]
pub struct FoundDocument {
    /// The document.
    pub document: Arc<Document>,
    /// Its passages, in order.
    pub stored: Vec<StoredPassage>,
    /// Which versions of rows these are.
    pub version: StoredVersion,
}

/// What is embedded of a row.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// The whole text of the source column.
    pub text: String,
    /// The values of the template's columns.
    pub values: Vec<Option<String>>,
}

impl Document {
    /// Its memory, in bytes.
    pub fn bytes(&self) -> usize {
        let values = self.values.iter().flatten();
        self.text.len() + values.map(String::len).sum::<usize>()
    }
}

/// A hash of the row versions of a document's passages: the same hash, the same rows with the same contents. `None` where
/// there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredVersion(pub Option<Uuid>);

/// A stored passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPassage {
    /// Its place in the document.
    pub seq: i32,
    /// Where it begins and ends, in characters.
    pub span: Option<(i32, i32)>,
    /// What its vector is of. `None` where it has no vector, or a vector of which nothing is known.
    pub fingerprint: Option<Uuid>,
    /// The md5 of its text.
    pub chunk: Option<Uuid>,
    /// Whether it has a vector.
    pub has_vector: bool,
    /// Which document it says that the passages are of.
    pub document: Option<Uuid>,
}
