//! The last text of each recently changed key.
//!
//! An UPDATE of another column (`views = views + 1`) sends the source column again. If its text equals the one that was seen
//! last for the key, it needs no second embedding: its vector is written or on its way.
//!
//! Where texts are read by key, the text that was written last takes its place: what is read and equals it has its vector.
//!
//! Only updates may be answered from here. A row that was deleted and inserted again with the same text has no vector.

use std::num::NonZeroUsize;

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
///
/// A flat table: each change of a stream looks here, so it allocates nothing. The hash of a key decides in which set of
/// places it is, and each set forgets what was noted in it the longest ago. The table grows with the keys that it holds, up
/// to twice as many places as keys to remember, so hardly any of these is forgotten because its set is full.
pub struct RecentTexts {
    /// Sets of [`WAYS`] places, the newest first. Each place is the hash of a key, 0 where it is vacant, and that of a text.
    places: Vec<u128>,
    /// Places that are not vacant.
    taken: usize,
    max_sets: usize,
    seed: u64,
}

/// Places of a set, each of two numbers.
const WAYS: usize = 16;
const WIDTH: usize = 2 * WAYS;
/// The sets of a table that is empty, at most: 32 kB.
const FIRST_SETS: usize = 64;

impl Default for RecentTexts {
    /// Remembers the texts of 65,536 keys.
    fn default() -> Self {
        RecentTexts::new(CAPACITY)
    }
}

impl RecentTexts {
    /// Remembers the texts of the last `capacity` keys, but for a few in a thousand, at 64 to 128 bytes each.
    pub fn new(capacity: NonZeroUsize) -> Self {
        let max_sets = (2 * capacity.get()).div_ceil(WAYS).next_power_of_two();
        RecentTexts {
            places: vec![0; max_sets.min(FIRST_SETS) * WIDTH],
            taken: 0,
            max_sets,
            seed: random_seed(),
        }
    }

    /// Notes the source as the newest of this key. Returns how it compares with the newest before.
    pub fn note(&mut self, key: &Key, source: &SourceText) -> Seen {
        let key = hash_key(key, self.seed);
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
        let key = hash_key(key, self.seed);
        let text = xxh3_128_with_seed(text.identity(), self.seed);
        let is_newest = self.take(key).inspect(|known| {
            self.put(key, *known);
        });
        is_newest == Some(text)
    }

    /// Notes a text; returns the one that was noted for the key before.
    fn put(&mut self, key: u128, text: u128) -> Option<u128> {
        let before = self.take(key);
        if 2 * self.taken >= self.sets() * WAYS && self.sets() < self.max_sets {
            self.grow();
        }
        let set = self.set(key);
        let has_room = set[WIDTH - 2] == 0;
        set.copy_within(..WIDTH - 2, 2);
        set[..2].copy_from_slice(&[key, text]);
        self.taken += usize::from(has_room);
        before
    }

    /// Forgets the key; returns the text that was noted for it.
    fn take(&mut self, key: u128) -> Option<u128> {
        let set = self.set(key);
        let place = set.chunks_exact(2).position(|place| place[0] == key)?;
        let text = set[2 * place + 1];
        set.copy_within(2 * (place + 1).., 2 * place);
        set[WIDTH - 2..].fill(0);
        self.taken -= 1;
        Some(text)
    }

    /// Doubles the number of sets. Each set becomes two, so the order within them stays.
    fn grow(&mut self) {
        let twice = vec![0; 2 * self.places.len()];
        let places = std::mem::replace(&mut self.places, twice);
        self.taken = 0;
        let taken = places.chunks_exact(2).filter(|place| place[0] != 0);
        for place in taken.rev() {
            self.put(place[0], place[1]);
        }
    }

    fn sets(&self) -> usize {
        self.places.len() / WIDTH
    }

    /// The places of a key.
    fn set(&mut self, key: u128) -> &mut [u128] {
        let begin = (key as usize & (self.sets() - 1)) * WIDTH;
        &mut self.places[begin..begin + WIDTH]
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
        assert!(newest > CAPACITY * 99 / 100, "{newest}");
    }

    #[test]
    fn the_parts_of_a_composite_key_stay_apart() {
        let mut recent = RecentTexts::new(NonZeroUsize::new(2).unwrap());
        let text = SourceText::from_column(Some("t"));
        assert_eq!(recent.note(&key(&["ab", "c"]), &text), Seen::Unknown);
        assert_eq!(recent.note(&key(&["a", "bc"]), &text), Seen::Unknown);
    }
}
