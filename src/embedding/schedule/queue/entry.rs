//! A text that is computed once, and who asked for it.

use super::pool::{Place, PoolKey};
use super::request::{EntryId, ModelKey, Priority, Request, TextKey};

/// A text that is computed once.
pub(super) struct Entry<R, P> {
    pub model: ModelKey,
    pub text: TextKey,
    pub priority: Priority,
    pub age: u64,
    pub stage: Stage<P>,
    pub requests: Vec<(Request, R)>,
}

pub(super) enum Stage<P> {
    Pending(P),
    Tokenizing,
    Tokenized { length: usize },
    Running,
}

impl<R, P> Entry<R, P> {
    pub(super) fn place(&self, id: EntryId) -> Place {
        Place {
            age: self.age,
            entry: id,
        }
    }

    pub(super) fn pending(&self) -> Option<&P> {
        match &self.stage {
            Stage::Pending(text) => Some(text),
            _ => None,
        }
    }

    /// Where a tokenized text is in its pool.
    pub(super) fn pool_key(&self, id: EntryId) -> Option<PoolKey> {
        match self.stage {
            Stage::Tokenized { length } => Some(PoolKey {
                length,
                place: self.place(id),
            }),
            _ => None,
        }
    }
}
