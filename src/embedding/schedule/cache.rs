//! Vectors that were computed a while ago, for texts that come again.
//!
//! A vector depends on nothing but the model's files, the options, the prompt of the text's role, and the text. All are in
//! the key, as a hash of 128 bits with a random seed: a collision is unlikely enough, and an author of texts cannot construct
//! one. Errors are not kept.
//!
//! The memory is bounded by bytes. What is asked for more than once stays longer than what passes through once (S3-FIFO),
//! so the scan of a large table does not displace the texts that users repeat.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::Xxh3;

use super::queue::TextKey;

/// Memory of an entry beside its vector: key, pointers, state.
const ENTRY_OVERHEAD: u64 = 96;
/// Bytes of a usual entry, for the size of the tables.
const USUAL_ENTRY: u64 = 384 * 4 + ENTRY_OVERHEAD;

/// What is known of a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KnownVector {
    /// As many values as the model has dimensions.
    pub vector: Vec<f32>,
    /// The text is longer than the model's window.
    pub is_truncated: bool,
    /// Tokens that the model has read for it.
    pub tokens: usize,
}

/// A bounded memory of vectors. All methods take a moment and may be called from any thread.
pub(crate) struct VectorCache {
    /// `None` for a cache of no bytes.
    vectors: Option<Cache<TextKey, Arc<KnownVector>, ByBytes>>,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
struct ByBytes;

impl Weighter<TextKey, Arc<KnownVector>> for ByBytes {
    fn weight(&self, _key: &TextKey, known: &Arc<KnownVector>) -> u64 {
        size_of_val(known.vector.as_slice()) as u64 + ENTRY_OVERHEAD
    }
}

impl VectorCache {
    /// A cache of at most `bytes`; 0 for none.
    pub(crate) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / USUAL_ENTRY).unwrap_or(usize::MAX);
        VectorCache {
            vectors: (bytes > 0).then(|| Cache::with_weighter(items, bytes, ByBytes)),
            seed: RandomState::new().hash_one(0),
        }
    }

    /// The key of a text. `identity` tells the vectors of its model and role from those of others. Equal keys have equal
    /// vectors, whether they are kept or not.
    pub(crate) fn key(&self, identity: [&str; 2], text: &str) -> TextKey {
        let mut hasher = Xxh3::with_seed(self.seed);
        for part in identity {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(text.as_bytes());
        hasher.digest128()
    }

    /// What is known of the text with this key.
    pub(crate) fn get(&self, key: TextKey) -> Option<Arc<KnownVector>> {
        self.vectors.as_ref()?.get(&key)
    }

    /// Keeps what was computed, and returns it.
    pub(crate) fn put(&self, key: TextKey, known: KnownVector) -> Arc<KnownVector> {
        let known = Arc::new(known);
        if let Some(vectors) = &self.vectors {
            vectors.insert(key, known.clone());
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(dimensions: usize) -> KnownVector {
        KnownVector {
            vector: vec![1.0; dimensions],
            is_truncated: false,
            tokens: 3,
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_the_memory_is_bounded() {
        let cache = VectorCache::new(1 << 20);
        cache.put(7, known(384));
        assert_eq!(cache.get(7).as_deref(), Some(&known(384)));
        (0..100_000).for_each(|key| drop(cache.put(key, known(384))));
        let vectors = cache.vectors.as_ref().expect("1 MiB");
        assert!(vectors.weight() <= 1 << 20, "{}", vectors.weight());
        assert!(vectors.len() > 300, "{}", vectors.len());
    }

    #[test]
    fn what_was_asked_for_again_outlives_a_scan() {
        let cache = VectorCache::new(1 << 20);
        for _ in 0..3 {
            cache.put(1, known(384));
            assert!(cache.get(1).is_some());
        }
        (100..5_000).for_each(|key| drop(cache.put(key, known(384))));
        assert!(cache.get(1).is_some());
    }

    #[test]
    fn a_cache_of_no_bytes_keeps_nothing() {
        let cache = VectorCache::new(0);
        cache.put(7, known(3));
        assert_eq!(cache.get(7), None);
    }
}
