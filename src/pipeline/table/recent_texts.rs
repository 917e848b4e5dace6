//! The last text of each recently changed key.
//!
//! An UPDATE of another column (`views = views + 1`) sends the source column again. If its text equals the one that was seen
//! last for the key, it needs no second embedding: its vector is written or on its way.
//!
//! Where texts are read by key, the text that was written last takes its place: what is read and equals it has its vector.
//!
//! Only updates may be answered from here. A row that was deleted and inserted again with the same text has no vector.

use std::num::NonZeroUsize;

use lru::LruCache;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::pipeline::table::row::{Key, SourceText};
use crate::pipeline::table::text::Text;

/// Keys whose last text is remembered.
pub const CAPACITY: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// How a text compares with the one that was seen last for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It is the same.
    Same,
    /// It is another one.
    Other,
    /// None is remembered.
    Unknown,
}

/// A bounded memory of (key, text) hashes. 128 bits with a random seed, which makes a
/// collision unlikely enough, and keeps an author of texts from constructing one.
pub struct RecentTexts {
    texts: LruCache<u128, u128>,
    seed: u64,
}

impl Default for RecentTexts {
    /// Remembers the texts of 65,536 keys.
    fn default() -> Self {
        RecentTexts::new(CAPACITY)
    }
}

impl RecentTexts {
    /// Remembers the texts of up to `capacity` keys, at about 64 bytes each.
    pub fn new(capacity: NonZeroUsize) -> Self {
        RecentTexts {
            texts: LruCache::new(capacity),
            seed: random_seed(),
        }
    }

    /// Notes the source as the newest of this key. Returns how it compares with the newest before.
    pub fn note(&mut self, key: &Key, source: &SourceText) -> Seen {
        let key = hash_key(key, self.seed);
        let (text, before) = match source {
            SourceText::Text(text) => {
                let text = xxh3_128_with_seed(text.identity(), self.seed);
                (Some(text), self.texts.put(key, text))
            }
            SourceText::Empty | SourceText::Unread | SourceText::Truncated => {
                (None, self.texts.pop(&key))
            }
        };
        match before {
            None => Seen::Unknown,
            before if before == text => Seen::Same,
            Some(_) => Seen::Other,
        }
    }

    /// Whether this text was noted last for the key.
    pub fn is_newest(&mut self, key: &Key, text: &Text) -> bool {
        let key = hash_key(key, self.seed);
        self.texts.get(&key) == Some(&xxh3_128_with_seed(text.identity(), self.seed))
    }
}

/// A seed that nothing outside of the process knows.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// A hash of a key that tells its parts apart.
pub fn hash_key(key: &Key, seed: u64) -> u128 {
    if key.len() == 1 {
        return xxh3_128_with_seed(key.part(0).as_bytes(), seed);
    }
    let mut bytes = Vec::with_capacity(key.bytes() + 8 * key.len());
    for part in key.parts() {
        bytes.extend_from_slice(&part.len().to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh3_128_with_seed(&bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> Key {
        Key::new(parts.iter().map(|part| Box::from(*part)))
    }

    #[test]
    fn only_the_last_text_of_a_key_counts() {
        let mut recent = RecentTexts::new(NonZeroUsize::new(2).unwrap());
        let (a, b) = (
            SourceText::from_column(Some("a")),
            SourceText::from_column(Some("b")),
        );
        assert_eq!(recent.note(&key(&["1"]), &a), Seen::Unknown);
        assert_eq!(recent.note(&key(&["1"]), &a), Seen::Same);
        assert_eq!(recent.note(&key(&["1"]), &b), Seen::Other);
        let again = recent.note(&key(&["1"]), &a);
        assert_eq!(again, Seen::Other, "a -> b -> a must be embedded again");
        let emptied = recent.note(&key(&["1"]), &SourceText::Empty);
        assert_eq!(emptied, Seen::Other);
        assert_eq!(recent.note(&key(&["1"]), &a), Seen::Unknown);
    }

    #[test]
    fn the_parts_of_a_composite_key_stay_apart() {
        let mut recent = RecentTexts::new(NonZeroUsize::new(2).unwrap());
        let text = SourceText::from_column(Some("t"));
        assert_eq!(recent.note(&key(&["ab", "c"]), &text), Seen::Unknown);
        assert_eq!(recent.note(&key(&["a", "bc"]), &text), Seen::Unknown);
    }
}
