//! Rows a second, and today: from counts that only grow.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time over which a rate is an average.
const WINDOW: Duration = Duration::from_secs(10);
const DAY_SECONDS: u64 = 24 * 3600;

/// The rate of a count now.
#[derive(Debug, Default)]
pub struct Rate {
    /// Counts and when they were taken, for about as long as the window.
    taken: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Takes the count at `now`, and returns the events a second over the last seconds.
    pub fn take(&mut self, now: Instant, count: u64) -> f64 {
        self.taken.push_back((now, count));
        // The last one outside the window is where the window begins.
        while self
            .taken
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.taken.pop_front();
        }
        let (began, first) = self.taken[0];
        let elapsed = now.duration_since(began).as_secs_f64();
        match elapsed > 0.0 {
            true => count.saturating_sub(first) as f64 / elapsed,
            false => 0.0,
        }
    }
}

/// A count of the current day in UTC, which goes on after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Today {
    /// Days since 1970-01-01.
    pub day: u64,
    /// The count of that day so far.
    pub count: u64,
}

impl Today {
    /// Counts `more` events at `now`.
    pub fn add(&mut self, now: SystemTime, more: u64) {
        let day = day(now);
        if day != self.day {
            *self = Today { day, count: 0 };
        }
        self.count += more;
    }

    /// The count of the day of `now`.
    pub fn count(&self, now: SystemTime) -> u64 {
        match self.day == day(now) {
            true => self.count,
            false => 0,
        }
    }
}

fn day(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / DAY_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_ten_seconds() {
        let (begin, mut rate) = (Instant::now(), Rate::default());
        let counts = [(0, 100), (5, 150), (10, 150), (15, 150), (100, 320)];
        let rates = counts.map(|(seconds, count)| {
            let rate = rate.take(begin + Duration::from_secs(seconds), count);
            rate.to_string()
        });
        assert_eq!(rates, ["0", "10", "5", "0", "2"]);
    }

    #[test]
    fn a_day_begins_with_none() {
        let at = |hours: u64| UNIX_EPOCH + Duration::from_secs(hours * 3600);
        let mut today = Today::default();
        today.add(at(47), 5);
        today.add(at(47), 1);
        assert_eq!((today.count(at(47)), today.count(at(48))), (6, 0));
        today.add(at(48), 2);
        assert_eq!(today.count(at(49)), 2);
    }
}
