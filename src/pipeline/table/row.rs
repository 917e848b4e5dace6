//! What travels through the pipeline: a key, the text of its source column, and the receipt that its sender waits for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use super::text::Text;
use crate::replication::Ticket;

/// One subscription of a job to a slot reader. A job that subscribes again gets a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(u64);

impl SubscriberId {
    /// An id that no other subscription of this process has, so that the receipt of a row which comes late, after the stream
    /// was opened again, is never taken for that of another.
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        SubscriberId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The key of a row: its key columns as text, in the order of [`TargetTable::key`](super::target::TargetTable::key).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[Box<str>]>);

impl Key {
    /// A key of these parts, of which there is at least one.
    pub fn new(parts: impl IntoIterator<Item = Box<str>>) -> Self {
        Key(parts.into_iter().collect())
    }

    /// The key of a change that concerns all rows of the table.
    pub fn of_all_rows() -> Self {
        Key(Arc::new([]))
    }

    /// The text of the key column at `position`, counted from 0.
    ///
    /// # Panics
    /// Where the key has fewer columns.
    pub fn part(&self, position: usize) -> &str {
        &self.0[position]
    }

    /// The number of key columns.
    #[allow(
        clippy::len_without_is_empty,
        reason = "the key of a row has at least one column"
    )]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The texts of the key columns, in order.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|part| &**part)
    }

    /// The length of all parts together, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }
}

impl fmt::Display for Key {
    /// `(1, a)`, for messages about one row.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.0.join(", "))
    }
}

/// What the source column of a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceText {
    /// A text to embed.
    Text(Text),
    /// NULL or `''`: there is nothing to embed, and a vector would be stale.
    Empty,
    /// The stream did not carry it (unchanged TOAST, a column that is not published): it is read by key.
    Unread,
    /// Every row of the table was removed at once: the row stands for all of them.
    Truncated,
}

impl SourceText {
    /// The value of a source column; NULL and `''` are both [`Empty`](Self::Empty).
    pub fn from_column(value: Option<&str>) -> Self {
        match value {
            None | Some("") => SourceText::Empty,
            Some(text) => SourceText::Text(Text::new(text)),
        }
    }

    /// What [`text::sql`](super::text::sql) has selected as the columns `first` and the next of a row.
    ///
    /// # Errors
    /// Where they have other types.
    pub fn from_row(
        row: &tokio_postgres::Row,
        first: usize,
    ) -> Result<Self, tokio_postgres::Error> {
        let text = Text::from_columns(row.try_get(first)?, row.try_get(first + 1)?);
        Ok(text.map_or(SourceText::Empty, SourceText::Text))
    }

    /// The text, if there is one that is known.
    pub fn text(&self) -> Option<&Text> {
        match self {
            SourceText::Text(text) => Some(text),
            SourceText::Empty | SourceText::Unread | SourceText::Truncated => None,
        }
    }

    /// The memory that the text takes, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            SourceText::Text(text) => text.head().len(),
            SourceText::Empty | SourceText::Unread | SourceText::Truncated => 0,
        }
    }
}

/// A hash of a source text; 0 for an empty one, which has no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextHash(u64);

impl TextHash {
    /// The hash of a text that is known; `None` for one that has to be read by key first.
    pub fn new(source: &SourceText) -> Option<TextHash> {
        match source {
            SourceText::Text(text) => Some(TextHash(xxh3_64(text.identity()))),
            SourceText::Empty => Some(TextHash(0)),
            SourceText::Unread | SourceText::Truncated => None,
        }
    }

    /// For the write-back marker.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The hash that was [`to_bits`](Self::to_bits).
    pub fn from_bits(bits: u64) -> TextHash {
        TextHash(bits)
    }
}

/// The receipt of a row, made by its sender. It goes back exactly once, when the row is finished: written, superseded, gone
/// or quarantined.
///
/// It carries what the sender needs in order to settle its accounts, and nothing of the row: a finished row's text is freed
/// at once, however long its receipt waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// For a change from the stream: the slot reader counts the row in its transaction.
    Live(LiveAck),
    /// For a row that the initial backfill, `resync` or `retry-failed` found.
    Backfill(BackfillAck),
    /// For a row that the write path has found itself: no sender waits for it.
    None,
}

/// The receipt of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveAck {
    /// The transaction in which the row is counted.
    pub ticket: Ticket,
    /// The job for which it is counted.
    pub subscriber: SubscriberId,
    /// The memory that the row was counted with.
    pub bytes: usize,
}

/// The receipt of a row from a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackfillAck {
    /// The memory that the row was counted with.
    pub bytes: usize,
}

/// One row on its way to its vector.
#[derive(Debug, Clone)]
pub struct Row {
    /// Identifies the row in the target table.
    pub key: Key,
    /// The text to embed, as far as it is known.
    pub source: SourceText,
    /// The transaction that brought the change, whose commit may not be visible yet; `None` for rows that a scan has seen.
    pub xid: Option<u32>,
    /// How many write-backs led to this change, each by a trigger that the one before fired. 0 for a change of a user, and
    /// for rows that a scan has found.
    pub cascade_depth: u8,
    /// The text that the row's vector was written for a moment ago. If the row still holds it, there is nothing to do.
    pub written_for: Option<TextHash>,
    /// How often its text was read by key.
    pub reads: u8,
    /// The change updated a row that had this key before: what was written for the key last is still its vector, unless the
    /// text is another one. Of an inserted row nothing is known.
    pub is_update: bool,
    /// The key that the row had before the change, if that was another one.
    pub moved_from: Option<Key>,
    /// Goes back to the sender.
    pub ack: Ack,
    /// The receipts of scanned rows that this row has superseded: they are finished when it is.
    pub absorbed: Vec<BackfillAck>,
}

/// Memory of a row beside its key and text: allocations, places in queues.
const ROW_OVERHEAD: usize = 64;

impl Row {
    /// A row of the change stream. `xid` is its transaction's id.
    pub fn live(
        key: Key,
        source: SourceText,
        xid: u32,
        ticket: Ticket,
        subscriber: SubscriberId,
    ) -> Self {
        let ack = Ack::Live(LiveAck {
            ticket,
            subscriber,
            bytes: bytes_of(&key, &source),
        });
        Row {
            key,
            source,
            xid: Some(xid),
            cascade_depth: 0,
            written_for: None,
            reads: 0,
            is_update: false,
            moved_from: None,
            ack,
            absorbed: Vec::new(),
        }
    }

    /// A row that a scan has found.
    pub fn backfill(key: Key, source: SourceText) -> Self {
        let bytes = bytes_of(&key, &source);
        Row {
            key,
            source,
            xid: None,
            cascade_depth: 0,
            written_for: None,
            reads: 0,
            is_update: false,
            moved_from: None,
            ack: Ack::Backfill(BackfillAck { bytes }),
            absorbed: Vec::new(),
        }
    }

    /// A row that may be gone, of which the write path has found passages.
    pub fn of_sweep(key: Key) -> Self {
        Row {
            ack: Ack::None,
            ..Row::backfill(key, SourceText::Unread)
        }
    }

    /// Whether the row comes from the change stream.
    pub fn is_live(&self) -> bool {
        matches!(self.ack, Ack::Live(_))
    }

    /// Whether this row, which came later, makes the work for `older` needless: a row of the same key, or of the key that
    /// this one had before.
    ///
    /// A change in the stream comes after all changes that came before it, and is sent again if it is not finished. Whether a
    /// scanned row shows an older or a newer text than a change is not known, so it never supersedes one
    /// ([`absorb`](Self::absorb)). Rows of write-backs keep their cascade depth for themselves: it ends cascades.
    pub fn supersedes(&self, older: &Row) -> bool {
        self.cascade_depth == older.cascade_depth && (self.is_live() || !older.is_live())
    }

    /// Takes over what was owed to a row that this one supersedes. Returns the receipt that can go out now: that of a change.
    ///
    /// A confirmed position may pass a superseded change, because this one comes later in the WAL and holds the position
    /// itself. A scanned row is finished with this row, since a finished scan means vectors.
    pub fn take_over(&mut self, older: Row) -> Option<LiveAck> {
        self.absorbed.extend(older.absorbed);
        // Of the older row it may have been unknown whether it has a vector.
        self.is_update &= older.is_update;
        match older.ack {
            Ack::Live(ack) => Some(ack),
            Ack::Backfill(ack) => {
                self.absorbed.push(ack);
                None
            }
            Ack::None => None,
        }
    }

    /// Takes over a scanned row of the same key, which came later. If it shows another text than this one, then either the
    /// change that brought it is yet to come, or this row is found changed and is read by key.
    ///
    /// Returns the scanned row where it has to be worked on by itself.
    pub fn absorb(&mut self, scanned: Row) -> Option<Row> {
        let Ack::Backfill(ack) = scanned.ack else {
            return Some(scanned);
        };
        if !self.is_live() || self.cascade_depth > 0 {
            return Some(scanned);
        }
        self.absorbed.push(ack);
        self.absorbed.extend(scanned.absorbed);
        self.is_update = false;
        None
    }
}

impl Ack {
    /// The memory that the row was counted with.
    pub fn bytes(&self) -> usize {
        match self {
            Ack::Live(ack) => ack.bytes,
            Ack::Backfill(ack) => ack.bytes,
            Ack::None => 0,
        }
    }
}

fn bytes_of(key: &Key, source: &SourceText) -> usize {
    key.bytes() + source.bytes() + ROW_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_the_empty_text_have_no_vector() {
        assert_eq!(SourceText::from_column(None), SourceText::Empty);
        assert_eq!(SourceText::from_column(Some("")), SourceText::Empty);
        assert_eq!(
            SourceText::from_column(Some(" ")),
            SourceText::Text(Text::new(" "))
        );
    }

    #[test]
    fn a_receipt_carries_what_its_row_was_counted_with() {
        let row = Row::backfill(
            Key::new(["1".into(), "a".into()]),
            SourceText::from_column(Some("four")),
        );
        assert_eq!(row.ack.bytes(), 2 + 4 + ROW_OVERHEAD);
        assert_eq!(row.key.to_string(), "(1, a)");
    }
}
