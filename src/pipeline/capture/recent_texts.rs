//! The texts that were last seen for recently changed keys.
//!
//! An UPDATE of another column (`views = views + 1`) sends the source again. A text that equals the one last taken in for
//! this key needs no second embedding: its vector is written or on its way.
//!
//! Only updates may be answered from here. A row that was deleted and inserted again with the same text has no vector.

use std::num::NonZeroUsize;

use lru::LruCache;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::pipeline::table::row::{Key, SourceText};

/// A bounded memory of (key, text) hashes: 128 bits each, seeded, so that no two texts are mistaken for one another.
pub struct RecentTexts {
    texts: LruCache<u128, u128>,
    seed: u64,
}

impl RecentTexts {
    /// Remembers the texts of up to `capacity` keys, at about 64 bytes each.
    pub fn new(capacity: NonZeroUsize) -> Self {
        use std::hash::{BuildHasher, RandomState};
        RecentTexts {
            texts: LruCache::new(capacity),
            seed: RandomState::new().hash_one(0),
        }
    }

    /// Notes the source as the newest of this key; true where it was so already.
    pub fn note(&mut self, key: &Key, source: &SourceText) -> bool {
        let key = self.key_hash(key);
        match source {
            SourceText::Text(text) => {
                let text = xxh3_128_with_seed(text.as_bytes(), self.seed);
                self.texts.put(key, text) == Some(text)
            }
            SourceText::Empty | SourceText::Unread => {
                self.texts.pop(&key);
                false
            }
        }
    }

    fn key_hash(&self, key: &Key) -> u128 {
        if key.len() == 1 {
            return xxh3_128_with_seed(key.part(0).as_bytes(), self.seed);
        }
        let mut bytes = Vec::with_capacity(key.bytes() + 8 * key.len());
        for part in key.parts() {
            bytes.extend_from_slice(&part.len().to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        xxh3_128_with_seed(&bytes, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> Key {
        Key::new(parts.iter().map(|part| Box::from(*part)))
    }

    #[test]
    fn only_the_text_taken_in_last_counts() {
        let mut recent = RecentTexts::new(NonZeroUsize::new(2).unwrap());
        let (a, b) = (SourceText::Text("a".into()), SourceText::Text("b".into()));
        assert!(!recent.note(&key(&["1"]), &a));
        assert!(recent.note(&key(&["1"]), &a));
        assert!(!recent.note(&key(&["1"]), &b));
        assert!(
            !recent.note(&key(&["1"]), &a),
            "a -> b -> a must be embedded again"
        );
        assert!(!recent.note(&key(&["1"]), &SourceText::Empty));
        assert!(!recent.note(&key(&["1"]), &a));
    }

    #[test]
    fn composite_keys_do_not_run_together() {
        let mut recent = RecentTexts::new(NonZeroUsize::new(2).unwrap());
        let text = SourceText::Text("t".into());
        assert!(!recent.note(&key(&["ab", "c"]), &text));
        assert!(!recent.note(&key(&["a", "bc"]), &text));
    }
}
