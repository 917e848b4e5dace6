//! Growing pauses between retries, with jitter.
//!
//! A pause doubles with each attempt up to a maximum. Half of it is random, so that many jobs that lost the same server do
//! not return in the same millisecond ("equal jitter").

use std::time::Duration;

/// The pauses of one series of retries.
///
/// ```
/// use std::time::Duration;
/// use lantern::backoff::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// let first = backoff.next_pause();
/// assert!(first >= Duration::from_millis(100) && first <= Duration::from_millis(200));
/// for _ in 0..10 {
///     assert!(backoff.next_pause() <= Duration::from_secs(5));
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    /// The next pause, before jitter.
    next: Duration,
}

impl Backoff {
    /// A series that begins at `first` and doubles up to `max`, both before jitter.
    pub fn new(first: Duration, max: Duration) -> Self {
        Backoff {
            first,
            max,
            next: first.min(max),
        }
    }

    /// The next pause: between a half and the whole of what doubling gives.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        with_jitter(pause)
    }

    /// Waits for the next pause.
    ///
    /// Cancellation safe: a dropped future has counted its attempt and does nothing else.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// Starts the series again: the last attempt succeeded.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.max);
    }
}

/// The pause after `attempts` failed attempts of something that keeps its own count, such as a row that is retried.
pub fn pause_after(attempts: u32, first: Duration, max: Duration) -> Duration {
    with_jitter(
        first
            .saturating_mul(2_u32.saturating_pow(attempts))
            .min(max),
    )
}

fn with_jitter(pause: Duration) -> Duration {
    let half = pause / 2;
    half + half.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_up_to_the_maximum_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(FIRST, MAX);
        for whole in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let whole = Duration::from_millis(whole);
            let pause = backoff.next_pause();
            assert!(
                pause >= whole / 2 && pause <= whole,
                "{pause:?} of {whole:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }

    #[test]
    fn two_series_do_not_pause_alike() {
        let pauses = || {
            let mut backoff = Backoff::new(FIRST, MAX);
            (0..8).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_ne!(pauses(), pauses());
    }

    #[test]
    fn any_number_of_attempts_has_a_pause() {
        assert!(pause_after(0, FIRST, MAX) <= FIRST);
        assert!(pause_after(u32::MAX, FIRST, MAX) <= MAX);
    }
}
