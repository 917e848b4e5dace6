//! How large a write-back may be, by what the link and the table take.
//!
//! A batch that takes long holds up the live rows behind it and, while it executes, keeps its rows locked for their
//! users. So batches are as large as one takes about half a second, whatever makes it slow: a link of 1 Mbit/s, or a
//! trigger that takes 20 ms a row. Large batches are cheaper, so the size grows again where it can.

use std::time::Duration;

/// The first batch. Over a fast link the size has doubled to the maximum a moment later.
const FIRST_BYTES: usize = 256 << 10;
/// At the least about ten vectors.
const MIN_BYTES: usize = 16 << 10;
const MAX_BYTES: usize = 4 << 20;
/// Batches that take longer are too large, and those that take less may be larger.
const TOO_LONG: Duration = Duration::from_millis(800);
const SHORT: Duration = Duration::from_millis(400);

/// The size of the next batch, in bytes of keys, texts and vectors.
#[derive(Debug, Clone, Copy)]
pub struct LinkSpeed {
    bytes: usize,
}

impl Default for LinkSpeed {
    fn default() -> Self {
        LinkSpeed { bytes: FIRST_BYTES }
    }
}

impl LinkSpeed {
    /// A batch is full with the row that reaches this many bytes.
    pub fn batch_bytes(self) -> usize {
        self.bytes
    }

    /// A write-back of this many bytes took so long, since the one before had ended.
    pub fn note(&mut self, bytes: usize, took: Duration) {
        if took > TOO_LONG {
            // One long text may be larger than any limit; the rest must not become smaller because of it.
            self.bytes = (self.bytes.min(bytes) / 2).max(MIN_BYTES).min(self.bytes);
        } else if took < SHORT && bytes >= self.bytes {
            self.bytes = (self.bytes * 2).min(MAX_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_on_a_slow_link_and_grow_on_a_fast_one() {
        let mut speed = LinkSpeed::default();
        for _ in 0..20 {
            speed.note(speed.batch_bytes(), Duration::from_secs(2));
        }
        assert_eq!(speed.batch_bytes(), MIN_BYTES);
        for _ in 0..20 {
            speed.note(speed.batch_bytes(), Duration::from_millis(20));
        }
        assert_eq!(speed.batch_bytes(), MAX_BYTES);
    }

    #[test]
    fn small_batches_say_nothing_of_larger_ones() {
        let mut speed = LinkSpeed::default();
        for _ in 0..20 {
            speed.note(100, Duration::from_millis(1));
        }
        assert_eq!(speed.batch_bytes(), FIRST_BYTES);
    }
}
