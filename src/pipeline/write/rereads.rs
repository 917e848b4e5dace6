//! How often rows are read by key because they hold another text than the one embedded.
//!
//! In a backlog most rows do, and the changes that gave it to them are on their way; to read and embed each of them would
//! double the work. So a few are allowed at once, and a few each second: enough for texts that changed without a change of
//! their row, as when a label of an enum is renamed.

use tokio::time::Instant;

/// How many rows are read for that reason, at once and in the long run.
const MAX_AT_ONCE: f64 = 64.0;
const PER_SECOND: f64 = 8.0;

/// What is left of the allowance.
#[derive(Debug, Clone, Copy)]
pub struct Rereads {
    left: f64,
    counted_at: Instant,
}

impl Default for Rereads {
    fn default() -> Self {
        Rereads {
            left: MAX_AT_ONCE,
            counted_at: Instant::now(),
        }
    }
}

impl Rereads {
    /// Whether one more is allowed.
    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.counted_at).as_secs_f64() * PER_SECOND;
        self.counted_at = now;
        self.left = (self.left + gained).min(MAX_AT_ONCE);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_allowed_at_once() {
        let mut rereads = Rereads::default();
        let allowed = (0..1000).filter(|_| rereads.take()).count();
        assert!((64..=66).contains(&allowed), "{allowed}");
    }
}
