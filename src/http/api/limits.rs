//! How much one request may ask, and how much is worked on at a time.
//!
//! The first three are what clients of OpenAI expect: they cut their batches by them.

use std::time::Duration;

/// The most texts of a request.
pub const MAX_TEXTS: usize = 2048;
/// The most tokens of a request, in all texts together.
pub const MAX_TOKENS: usize = 300_000;
/// The most bytes of a request.
pub const MAX_BODY_BYTES: usize = 8 << 20;
/// How long a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most requests that are worked on at a time. Further ones are refused, and are to be sent again.
pub const MAX_REQUESTS: usize = 128;
/// The most memory for requests and answers, in KiB.
pub const MAX_MEMORY_KIB: u32 = 256 << 10;
/// What a refused client is told to wait.
pub const RETRY_AFTER_SECONDS: u64 = 1;
/// Bytes of text, or values of vectors, from which on a request is read or an answer is written beside the server's
/// thread: below, that takes less than a millisecond.
pub const MAX_INLINE: usize = 64 << 10;
/// How long the texts of a request wait for those of others, while there are others and the engine is busy: as long as
/// the answers of a batch take to reach their clients, and the next requests to come back.
pub const GATHER_TIME: Duration = Duration::from_millis(1);
/// How long the rest of a refused request is read, so that its client is not cut off while it sends.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes that are read of it.
pub const MAX_DISCARDED_BYTES: usize = 64 << 20;
