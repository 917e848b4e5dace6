//! What travels through the pipeline: a key, what became of its source, and where the news came from.

use std::sync::Arc;

use crate::replication::Ticket;

/// One stay of a member in a stream; a member that comes back gets another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub u64);

/// The key of a row: its key columns as text, in the order of [`super::target::TargetTable::key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Box<[Box<str>]>);

impl Key {
    pub fn new(parts: impl IntoIterator<Item = Box<str>>) -> Self {
        Key(parts.into_iter().collect())
    }

    pub fn part(&self, position: usize) -> &str {
        &self.0[position]
    }

    /// The number of key columns.
    #[allow(clippy::len_without_is_empty, reason = "a key has at least one column")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|part| &**part)
    }

    pub fn bytes(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }
}

impl std::fmt::Display for Key {
    /// `(1, a)`: for messages about one row.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({})", self.0.join(", "))
    }
}

/// What the source column holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A text to embed. Shared with the embedder's queue, so that it is held once.
    Text(Arc<str>),
    /// NULL or '': there is nothing to embed, and a vector would be stale.
    Empty,
    /// Not known from the stream: it has to be read by key.
    Unread,
}

impl Source {
    pub fn from_text(text: Option<&str>) -> Self {
        match text {
            None | Some("") => Source::Empty,
            Some(text) => Source::Text(text.into()),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Source::Text(text) => text.len(),
            Source::Empty | Source::Unread => 0,
        }
    }
}

/// Where a row came from, which is also who has to be told when it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A change in the stream, counted in its transaction, for whoever sits on this seat. `xid` is the transaction's.
    Live {
        ticket: Ticket,
        xid: u32,
        seat: Seat,
    },
    /// The scan of the rows that were there before.
    Backfill,
}

/// One row on its way from a change to its vector.
#[derive(Debug, Clone)]
pub struct Row {
    pub key: Key,
    pub source: Source,
    pub origin: Origin,
    /// Memory that the row was counted with when it came in; given back when it is finished.
    pub bytes: usize,
}

impl Row {
    pub fn new(key: Key, source: Source, origin: Origin) -> Self {
        let bytes = key.bytes() + source.bytes() + 64;
        Row {
            key,
            source,
            origin,
            bytes,
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.origin, Origin::Live { .. })
    }
}
