//! Clocks that tick together.
//!
//! Each wake-up of an idle process costs more than what is done in it. So whatever happens again and again in each job
//! happens in all of them at the same moments: one wake-up serves them all. Of what asks servers only a quarter of the jobs
//! has its turn at a time, since fifty statements at once would be in the way of users.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// How many turns the jobs have in a period.
const TURNS: u32 = 4;

/// All clocks count from here.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// A clock with this period, which ticks together with all others of the same `turn`, whatever number that is: it is one of
/// four. The first tick comes within a period; ticks that were missed are left out.
///
/// Call it where there is a runtime.
pub fn together(period: Duration, turn: u32) -> Interval {
    let now = Instant::now();
    let origin = *ORIGIN.get_or_init(|| now);
    let shift = period / TURNS * (turn % TURNS);
    let first = now + until_next(now.saturating_duration_since(origin), period, shift);
    let mut clock = interval_at(first, period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    clock
}

/// The time from a moment that is `elapsed` after the origin to the next tick.
fn until_next(elapsed: Duration, period: Duration, shift: Duration) -> Duration {
    let (elapsed, period) = (elapsed.as_nanos(), period.as_nanos().max(1));
    let since_last = (elapsed + period - shift.as_nanos() % period) % period;
    // At most a period, which is a `Duration`.
    Duration::from_nanos((period - since_last) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn clocks_that_begin_at_different_moments_tick_at_the_same() {
        let period = Duration::from_millis(40);
        let mut first = together(period, 2);
        tokio::time::sleep(Duration::from_millis(13)).await;
        let mut second = together(period, 6);
        let (one, other) = (first.tick().await, second.tick().await);
        let apart = other.saturating_duration_since(one).as_nanos();
        assert_eq!(apart % period.as_nanos(), 0, "{one:?}, {other:?}");
    }

    #[test]
    fn each_turn_comes_once_in_a_period() {
        let [period, quarter] = [400, 100].map(Duration::from_millis);
        for (elapsed, shift, left) in [
            (0, 0, 400),
            (1, 0, 399),
            (399, 0, 1),
            (400, 0, 400),
            (950, 0, 250),
            (0, 1, 100),
            (950, 2, 50),
            (1000, 2, 400),
        ] {
            let elapsed = Duration::from_millis(elapsed);
            let found = until_next(elapsed, period, quarter * shift);
            assert_eq!(found, Duration::from_millis(left), "{elapsed:?} {shift}");
        }
    }
}
