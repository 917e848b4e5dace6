//! The last text of each recently changed key.
//!
//! An UPDATE of another column (`views = views + 1`) sends the source column again. If its text equals the one that was seen
//! last for the key, it needs no second embedding: its vector is written or on its way.
//!
//! Where texts are read by key, the text that was written last takes its place: what is read and equals it has its vector.
//!
//! Only updates may be answered from here. A row that was deleted and inserted again with the same text has no vector.

use std::num::NonZeroUsize;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::pipeline::table::row::{Key, SourceText};
use crate::pipeline::table::text::Text;

/// The most keys whose last text is remembered.
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

/// A bounded memory of (key, text) hashes: 64 bits of a key and 128 of a text, with a random seed. That makes a collision
/// unlikely enough, and keeps an author of texts from constructing one.
///
/// A flat table: each change of a stream looks here, so it allocates nothing. The hash of a key decides in which set of
/// places it is, and each set forgets what was noted in it the longest ago. The table grows with the keys that it holds.
pub struct RecentTexts {
    /// The hashes of keys, in sets of [`WAYS`] places, the newest of each set first. 0 where a place is vacant.
    keys: Vec<u64>,
    /// The hashes of their texts, in the same places.
    texts: Vec<u128>,
    /// Places that are not vacant.
    taken: usize,
    max_sets: usize,
    seed: u64,
}

/// Places of a set.
const WAYS: usize = 16;
/// The sets of a table that is empty, at most: 24 kB.
const FIRST_SETS: usize = 64;

impl Default for RecentTexts {
    /// Remembers the texts of 65,536 keys.
    fn default() -> Self {
        RecentTexts::new(CAPACITY)
    }
}

impl RecentTexts {
    /// Remembers the texts of up to `capacity` keys, rounded up to a power of two, at 24 to 48 bytes each. Keys spread
    /// unevenly over the sets: of the last half of so many nearly all are remembered,
    /// and of the other half four in five.
    pub fn new(capacity: NonZeroUsize) -> Self {
        let max_sets = capacity.get().div_ceil(WAYS).next_power_of_two();
        let places = max_sets.min(FIRST_SETS) * WAYS;
        RecentTexts {
            keys: vec![0; places],
            texts: vec![0; places],
            taken: 0,
            max_sets,
            seed: random_seed(),
        }
    }

    /// Notes the source as the newest of this key. Returns how it compares with the newest before.
    pub fn note(&mut self, key: &Key, source: &SourceText) -> Seen {
        let key = self.hash(key);
        let (text, before) = match source {
            SourceText::Text(text) => {
                let text = xxh3_128_with_seed(text.identity(), self.seed);
                (Some(text), self.put(key, text))
            }
            SourceText::Empty | SourceText::Unread | SourceText::Truncated => {
                (None, self.take(key))
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
        let key = self.hash(key);
        let text = xxh3_128_with_seed(text.identity(), self.seed);
        let is_newest = self.take(key).inspect(|known| {
            self.put(key, *known);
        });
        is_newest == Some(text)
    }

    /// Notes a text; returns the one that was noted for the key before.
    fn put(&mut self, key: u64, text: u128) -> Option<u128> {
        let before = self.take(key);
        if 2 * self.taken >= self.keys.len() && self.sets() < self.max_sets {
            self.grow();
        }
        let places = self.set(key);
        let (keys, texts) = (&mut self.keys[places.clone()], &mut self.texts[places]);
        self.taken += usize::from(keys[WAYS - 1] == 0);
        keys.copy_within(..WAYS - 1, 1);
        texts.copy_within(..WAYS - 1, 1);
        (keys[0], texts[0]) = (key, text);
        before
    }

    /// Forgets the key; returns the text that was noted for it.
    fn take(&mut self, key: u64) -> Option<u128> {
        let places = self.set(key);
        let (keys, texts) = (&mut self.keys[places.clone()], &mut self.texts[places]);
        let place = keys.iter().position(|other| *other == key)?;
        let text = texts[place];
        keys.copy_within(place + 1.., place);
        texts.copy_within(place + 1.., place);
        keys[WAYS - 1] = 0;
        self.taken -= 1;
        Some(text)
    }

    /// Doubles the number of sets. Each set becomes two, so the order within them stays.
    fn grow(&mut self) {
        let places = 2 * self.keys.len();
        let keys = std::mem::replace(&mut self.keys, vec![0; places]);
        let texts = std::mem::replace(&mut self.texts, vec![0; places]);
        self.taken = 0;
        let taken = keys.into_iter().zip(texts).filter(|(key, _)| *key != 0);
        for (key, text) in taken.rev() {
            self.put(key, text);
        }
    }

    fn sets(&self) -> usize {
        self.keys.len() / WAYS
    }

    /// The places of a key.
    fn set(&self, key: u64) -> Range<usize> {
        let begin = (key as usize & (self.sets() - 1)) * WAYS;
        begin..begin + WAYS
    }

    /// Not 0, which is a vacant place.
    fn hash(&self, key: &Key) -> u64 {
        (hash_key(key, self.seed) as u64).max(1)
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
    fn the_last_keys_are_remembered_and_old_ones_forgotten() {
        const CAPACITY: usize = 4096;
        let mut recent = RecentTexts::new(NonZeroUsize::new(CAPACITY).unwrap());
        let text = SourceText::from_column(Some("t"));
        for number in 0..40 * CAPACITY {
            recent.note(&key(&[&number.to_string()]), &text);
        }
        let mut remembered = |first: usize| {
            let keys = (first..first + CAPACITY).map(|number| key(&[&number.to_string()]));
            let found = keys.filter(|key| recent.is_newest(key, text.text().unwrap()));
            found.count()
        };
        assert_eq!(remembered(0), 0);
        let newest = remembered(39 * CAPACITY);
        assert!(newest > CAPACITY * 85 / 100, "{newest}");
    }

    #[test]
    fn half_as_many_keys_as_there_are_places_are_all_remembered() {
        const CAPACITY: usize = 4096;
        let mut recent = RecentTexts::new(NonZeroUsize::new(CAPACITY).unwrap());
        let keys = || (0..CAPACITY / 2).map(|number| key(&[&number.to_string()]));
        let text = |number: usize| SourceText::from_column(Some(&format!("t{number}")));
        for (number, key) in keys().enumerate() {
            recent.note(&key, &text(number));
        }
        let forgotten = keys().enumerate().filter(|(number, key)| {
            let text = text(*number);
            !recent.is_newest(key, text.text().unwrap())
        });
        let forgotten = forgotten.count();
        assert!(forgotten < CAPACITY / 200, "{forgotten}");
    }

    #[test]
    fn the_parts_of_a_composite_key_stay_apart() {
        let mut recent = RecentTexts::new(NonZeroUsize::new(2).unwrap());
        let text = SourceText::from_column(Some("t"));
        assert_eq!(recent.note(&key(&["ab", "c"]), &text), Seen::Unknown);
        assert_eq!(recent.note(&key(&["a", "bc"]), &text), Seen::Unknown);
    }
}
