//! How often the stream is read while changes come without a pause.
//!
//! Whoever waits at a socket is woken for each message, of which a transaction of one row has three. On a busy machine that
//! takes more of the processor from the users than decoding does. So a reader that was woken a thousand times a second for
//! little waits a millisecond, and finds more. A change that comes alone is read at once.

use std::time::Duration;

use tokio::time::Instant;

/// The pause, and as often a read for little is free.
const PAUSE: Duration = Duration::from_millis(1);
/// Reads for little that may come in a row: some transactions at once are no stream yet.
const FREE: f64 = 24.0;
/// What is no longer little, in bytes: the pause must not slow down a backlog.
const LITTLE: usize = 16 << 10;

pub(super) struct Pace {
    /// Reads that are free now.
    free: f64,
    counted: Instant,
    /// Until when nothing is read.
    pub resumes: Option<Instant>,
}

impl Pace {
    pub fn new() -> Self {
        Pace {
            free: FREE,
            counted: Instant::now(),
            resumes: None,
        }
    }

    /// A read has brought this many bytes at `now`.
    pub fn read(&mut self, bytes: usize, now: Instant) {
        let since = now.duration_since(self.counted);
        self.counted = now;
        self.free = (self.free + since.div_duration_f64(PAUSE)).min(FREE);
        if bytes >= LITTLE {
            return;
        }
        self.free -= 1.0;
        if self.free < 0.0 {
            self.free = 0.0;
            self.resumes = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads so often for some time; says how many of the reads were followed by a pause.
    fn pauses(pace: &mut Pace, every: Duration, reads: u32, bytes: usize) -> u32 {
        let begin = pace.counted;
        let mut pauses = 0;
        for number in 1..=reads {
            pace.read(bytes, begin + every * number);
            pauses += u32::from(pace.resumes.take().is_some());
        }
        pauses
    }

    #[tokio::test]
    async fn changes_that_come_seldom_or_some_at_once_are_read_at_once() {
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
