//! The last values of the columns from which a text is made, of each recently changed key.
//!
//! As [`recent_texts`](super::recent_texts), for jobs whose texts are made of several columns, or are read by key whatever the
//! stream carries. The values are compared one by one, because an UPDATE may carry some of them and leave out others, which
//! it did not change (unchanged TOAST).

use std::num::NonZeroUsize;

use lru::LruCache;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::recent_texts::{CAPACITY, Seen, hash_key, random_seed};
use super::row::Key;

/// The value of a column, as a change shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownValue<'a> {
    /// NULL.
    Null,
    /// In the text format of its type.
    Text(&'a [u8]),
    /// As it was before the change.
    Unchanged,
}

/// Stands for NULL.
const NULL: u128 = 0;
/// Stands for a value that no change has shown.
const NEVER_SHOWN: u128 = 1;

/// A bounded memory of hashes, as [`RecentTexts`](super::recent_texts::RecentTexts) is.
pub struct RecentValues {
    rows: LruCache<u128, Box<[u128]>>,
    seed: u64,
}

impl Default for RecentValues {
    /// Remembers the values of 65,536 keys.
    fn default() -> Self {
        RecentValues::new(CAPACITY)
    }
}

impl RecentValues {
    /// Remembers the values of up to `capacity` keys, at about 64 bytes each and 16 a value.
    pub fn new(capacity: NonZeroUsize) -> Self {
        RecentValues {
            rows: LruCache::new(capacity),
            seed: random_seed(),
        }
    }

    /// Notes the values of a row that has just got this key. Nothing that was noted for the key before is of this row.
    pub fn note_new(&mut self, key: &Key, values: &[ShownValue<'_>]) {
        let hashes = values
            .iter()
            .map(|value| self.hash(value).unwrap_or(NEVER_SHOWN));
        let hashes = hashes.collect();
        self.rows.put(hash_key(key, self.seed), hashes);
    }

    /// Notes the values of a row that had this key before. Returns how they compare with those that were noted last.
    pub fn note_update(&mut self, key: &Key, values: &[ShownValue<'_>]) -> Seen {
        let hashes: Vec<Option<u128>> = values.iter().map(|value| self.hash(value)).collect();
        let known = self.rows.get_mut(&hash_key(key, self.seed));
        let Some(known) = known.filter(|known| known.len() == hashes.len()) else {
            self.note_new(key, values);
            return Seen::Unknown;
        };
        let mut seen = Seen::Same;
        for (known, hash) in known.iter_mut().zip(hashes) {
            if let Some(hash) = hash
                && *known != hash
            {
                *known = hash;
                seen = Seen::Other;
            }
        }
        seen
    }

    /// Forgets what was noted for a key.
    pub fn forget(&mut self, key: &Key) {
        self.rows.pop(&hash_key(key, self.seed));
    }

    /// `None` where the change does not show the value.
    fn hash(&self, value: &ShownValue<'_>) -> Option<u128> {
        match value {
            ShownValue::Null => Some(NULL),
            ShownValue::Text(text) => Some(xxh3_128_with_seed(text, self.seed)),
            ShownValue::Unchanged => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ShownValue::{Null, Text, Unchanged};
    use super::*;

    #[test]
    fn an_update_is_the_same_only_if_no_value_has_changed() {
        let mut recent = RecentValues::new(NonZeroUsize::new(2).unwrap());
        let key = Key::new(["1".into()]);
        for (values, seen) in [
            ([Text(b"body"), Text(b"title")], Seen::Unknown),
            ([Text(b"body"), Text(b"title")], Seen::Same),
            ([Unchanged, Text(b"title")], Seen::Same),
            ([Unchanged, Text(b"other")], Seen::Other),
            ([Unchanged, Null], Seen::Other),
            ([Text(b"body"), Null], Seen::Same),
            ([Null, Text(b"body")], Seen::Other),
        ] {
            assert_eq!(recent.note_update(&key, &values), seen, "{values:?}");
        }
    }

    #[test]
    fn what_was_noted_of_another_row_under_the_key_does_not_count() {
        let mut recent = RecentValues::new(NonZeroUsize::new(2).unwrap());
        let key = Key::new(["1".into()]);
        recent.note_new(&key, &[Text(b"body"), Text(b"title")]);
        recent.note_new(&key, &[Unchanged, Text(b"title")]);
        assert_eq!(
            recent.note_update(&key, &[Unchanged, Unchanged]),
            Seen::Same
        );
        let shown = [Text(b"body"), Unchanged];
        assert_eq!(recent.note_update(&key, &shown), Seen::Other);
    }
}
