//! What is known of the device that runs a model.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What is known of the device that runs a model.
pub(crate) struct Device {
    /// Padded tokens of a batch; `usize::MAX` where the engine's setting counts.
    batch_tokens: AtomicUsize,
    /// Whether a lower size was logged.
    pub has_warned: AtomicBool,
    /// How often the session was made again.
    pub renewals: AtomicU64,
    /// Held by the thread that makes it again.
    pub renewing: Mutex<()>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            batch_tokens: AtomicUsize::new(usize::MAX),
            has_warned: AtomicBool::default(),
            renewals: AtomicU64::default(),
            renewing: Mutex::default(),
        }
    }
}

impl Device {
    /// The most padded tokens of a batch, unless the engine's setting counts.
    pub(crate) fn batch_tokens(&self) -> Option<usize> {
        let tokens = self.batch_tokens.load(Ordering::Relaxed);
        (tokens < usize::MAX).then_some(tokens)
    }

    /// From now on a batch has at most so many padded tokens. Returns whether it could have had more.
    pub(crate) fn lower_batch_tokens(&self, tokens: usize) -> bool {
        let before = self.batch_tokens.fetch_min(tokens, Ordering::Relaxed);
        tokens < before
    }
}
