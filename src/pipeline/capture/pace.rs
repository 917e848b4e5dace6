//! How often the stream is read while changes come without a pause.
//!
//! A reader that waits at a socket is woken for each message, and a transaction of one row has three. On a busy machine that
//! takes more processor time from the users than decoding does. So a reader that has been woken a thousand times a second
//! for small reads waits a millisecond, and then finds more. A change that comes alone is read at once.

use std::time::Duration;

use tokio::time::Instant;

/// The length of a pause. One small read in this time is free.
const PAUSE: Duration = Duration::from_millis(1);
/// Small reads that may follow each other without a pause: a few transactions at once are not yet a stream.
const MAX_FREE_READS: f64 = 24.0;
/// From this size on, in bytes, a read is not small: pauses must not slow down a backlog.
const SMALL_READ: usize = 16 << 10;

/// A token bucket of small reads.
pub(super) struct Pace {
    /// Small reads that are free now.
    free_reads: f64,
    counted_at: Instant,
    /// When reading resumes, while it pauses.
    pub resumes_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace {
            free_reads: MAX_FREE_READS,
            counted_at: Instant::now(),
            resumes_at: None,
        }
    }

    /// Counts a read of this many bytes at `now`, and begins a pause if it was one small read too many.
    pub(super) fn count_read(&mut self, bytes: usize, now: Instant) {
        let since = now.duration_since(self.counted_at);
        self.counted_at = now;
        self.free_reads = (self.free_reads + since.div_duration_f64(PAUSE)).min(MAX_FREE_READS);
        if bytes >= SMALL_READ {
            return;
        }
        self.free_reads -= 1.0;
        if self.free_reads < 0.0 {
            self.free_reads = 0.0;
            self.resumes_at = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads at this interval; returns how many of the reads were followed by a pause.
    fn pauses(pace: &mut Pace, every: Duration, reads: u32, bytes: usize) -> u32 {
        let begin = pace.counted_at;
        let mut pauses = 0;
        for number in 1..=reads {
            pace.count_read(bytes, begin + every * number);
            pauses += u32::from(pace.resumes_at.take().is_some());
        }
        pauses
    }

    #[tokio::test]
    async fn rare_changes_and_short_bursts_are_read_at_once() {
        let mut pace = Pace::new();
        assert_eq!(pauses(&mut pace, Duration::from_millis(3), 1000, 100), 0);
        assert_eq!(pauses(&mut pace, Duration::ZERO, 20, 100), 0);
    }

    #[tokio::test]
    async fn a_stream_of_small_changes_is_read_with_pauses() {
        let mut pace = Pace::new();
        let pauses = pauses(&mut pace, Duration::from_micros(50), 1000, 100);
        assert!((900..1000).contains(&pauses), "{pauses}");
    }

    #[tokio::test]
    async fn a_backlog_is_read_without_pauses() {
        let mut pace = Pace::new();
        assert_eq!(pauses(&mut pace, Duration::ZERO, 1000, 64 << 10), 0);
    }
}
