//! The tokenized texts of one model and priority, and the batches that are cut from them.

use std::collections::BTreeMap;

use super::request::EntryId;

/// Maximum padding, in tokens, that a text may add to a batch. A batch of its own would cost about as much.
const MAX_PADDING: usize = 16;

/// Orders texts by age. A text that takes the place of another one has its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub age: u64,
    pub entry: EntryId,
}

/// Tokenized texts, shortest first.
pub(super) struct LengthPool<T> {
    pub texts: BTreeMap<PoolKey, T>,
    /// The sum of the lengths.
    pub tokens: usize,
}

/// Orders a pool: by length, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PoolKey {
    pub length: usize,
    pub place: Place,
}

impl<T> LengthPool<T> {
    pub(super) fn new() -> Self {
        Self {
            texts: BTreeMap::new(),
            tokens: 0,
        }
    }

    pub(super) fn insert(&mut self, key: PoolKey, text: T) {
        self.texts.insert(key, text);
        self.tokens += key.length;
    }

    pub(super) fn remove(&mut self, key: PoolKey) -> Option<T> {
        let text = self.texts.remove(&key)?;
        self.tokens -= key.length;
        Some(text)
    }

    /// Selects a batch around `seed` that fits into `budget` padded tokens: repeatedly the next shorter or the next
    /// longer text, whichever adds less padding. The seed itself is always selected, however long it is.
    ///
    /// A batch is a rectangle of `rows * width` tokens, where `width` is the length of its longest text. A shorter text
    /// adds one row with `width - length` padding; a longer one widens all rows before it.
    pub(super) fn neighbors(&self, seed: PoolKey, budget: usize) -> Vec<PoolKey> {
        let mut shorter = self
            .texts
            .range(..seed)
            .rev()
            .map(|(key, _)| *key)
            .peekable();
        let mut longer = self
            .texts
            .range(seed..)
            .skip(1)
            .map(|(key, _)| *key)
            .peekable();
        let mut keys = vec![seed];
        let mut width = seed.length;
        loop {
            let rows = keys.len();
            let fits = |padded: usize, padding: usize| {
                (padded <= budget && padding <= MAX_PADDING).then_some(padding)
            };
            let down = shorter
                .peek()
                .and_then(|key| fits((rows + 1) * width, width - key.length));
            let up = longer
                .peek()
                .and_then(|key| fits((rows + 1) * key.length, rows * (key.length - width)));
            let next = match (down, up) {
                (None, None) => return keys,
                (Some(down), Some(up)) if down <= up => shorter.next(),
                (Some(_), None) => shorter.next(),
                _ => longer.next(),
            };
            let Some(key) = next else { return keys };
            width = width.max(key.length);
            keys.push(key);
        }
    }
}
