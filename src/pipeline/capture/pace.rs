//! How often the stream is read while changes come without a pause.
//!
//! A reader that waits at a socket is woken for each message, and a transaction of one row has three. On a busy machine that
//! takes more processor time from the users than decoding does. So a reader that has been woken a thousand times a second
//! for small reads waits a millisecond, and then finds more. Where it finds several transactions each time, it waits up to
//! four: what a wake-up costs is then shared by more of them. A change that comes alone is read at once.

use std::time::Duration;

use tokio::time::Instant;

/// The length of a pause at first, and the longest. One small read in the time of two pauses is free.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(4);
/// Small reads that may follow each other without a pause: a few transactions at once are not yet a stream.
const MAX_FREE_READS: f64 = 24.0;
/// What a read brings after a pause, in bytes, where the next pause is twice as long: some four small transactions. With
/// less, changes come one by one.
const BUSY_READ: usize = 1 << 10;
/// From this size on pauses do not get longer.
const LONG_READ: usize = 16 << 10;
/// From this size on, in bytes, a read is not small: pauses must not slow down a backlog.
const LARGE_READ: usize = 2 * LONG_READ;

/// A token bucket of small reads.
pub(super) struct Pace {
    /// Small reads that are free now.
    free_reads: f64,
    counted_at: Instant,
    pause: Duration,
    /// When reading resumes, while it pauses.
    pub resumes_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace {
            free_reads: MAX_FREE_READS,
            counted_at: Instant::now(),
            pause: MIN_PAUSE,
            resumes_at: None,
        }
    }

    /// Counts what has been read until nothing more had arrived, in bytes, and begins a pause if it was one small read too
    /// many.
    pub(super) fn count_read(&mut self, bytes: usize, now: Instant) {
        let since = now.duration_since(self.counted_at);
        self.counted_at = now;
        self.free_reads =
            (self.free_reads + since.div_duration_f64(2 * self.pause)).min(MAX_FREE_READS);
        if bytes >= LARGE_READ {
            self.pause = MIN_PAUSE;
            return;
        }
        self.free_reads -= 1.0;
        if self.free_reads >= 0.0 {
            return;
        }
        self.free_reads = 0.0;
        self.pause = match bytes {
            0..BUSY_READ => MIN_PAUSE,
            BUSY_READ..LONG_READ => MAX_PAUSE.min(self.pause * 2),
            _ => self.pause,
        };
        self.resumes_at = Some(now + self.pause);
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

    /// Reads of a stream with so many bytes a millisecond, each time once a pause has ended; returns the last pause.
    fn pause_at(bytes_a_millisecond: f64) -> Duration {
        let mut pace = Pace::new();
        let mut now = pace.counted_at;
        for _ in 0..1000 {
            let since = match pace.resumes_at.take() {
                Some(resumes_at) => resumes_at - now,
                None => Duration::from_micros(50),
            };
            now += since;
            let bytes = bytes_a_millisecond * since.as_secs_f64() * 1e3;
            pace.count_read(bytes as usize, now);
        }
        pace.resumes_at.map_or(Duration::ZERO, |at| at - now)
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
    async fn pauses_are_longer_where_they_bring_more() {
        for (kilobytes_a_millisecond, milliseconds) in [(0.4, 1), (1.5, 4), (6.0, 4), (12.0, 2)] {
            let pause = pause_at(kilobytes_a_millisecond * 1024.0);
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(pause, expected, "{kilobytes_a_millisecond} kB");
        }
    }

    #[tokio::test]
    async fn a_backlog_is_read_without_pauses() {
        let mut pace = Pace::new();
        assert_eq!(pauses(&mut pace, Duration::ZERO, 1000, 64 << 10), 0);
    }
}
