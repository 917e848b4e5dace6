//! A line an hour that says that the daemon works: in steady state nothing else would.

use std::time::{Duration, Instant};

use crate::plural::form;

const INTERVAL: Duration = Duration::from_secs(3600);

/// When the next line is due, and what the last one has counted.
pub(super) struct Heartbeat {
    due: Instant,
    embedded: u64,
}

impl Heartbeat {
    /// The first line is due in an hour.
    pub fn new(now: Instant) -> Self {
        Heartbeat {
            due: now + INTERVAL,
            embedded: 0,
        }
    }

    /// Logs the line if it is due: how many jobs run here, and how many texts were embedded of `embedded` in all.
    pub fn log(&mut self, jobs: usize, embedded: u64) {
        if let Some(embedded) = self.beat(Instant::now(), embedded) {
            tracing::info!(
                "running {jobs} {}; {embedded} {} embedded in the last hour",
                form(jobs, "job", "jobs"),
                form(embedded, "text", "texts")
            );
        }
    }

    /// If a line is due: the number of texts that were embedded since the last one, of `embedded` in all.
    fn beat(&mut self, now: Instant, embedded: u64) -> Option<u64> {
        if now < self.due {
            return None;
        }
        self.due = now + INTERVAL;
        Some(embedded - std::mem::replace(&mut self.embedded, embedded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_an_hour_counts_the_texts_since_the_last_one() {
        let begin = Instant::now();
        let after = |minutes: u64| begin + Duration::from_secs(minutes * 60);
        let mut heartbeat = Heartbeat::new(begin);
        assert_eq!(heartbeat.beat(after(59), 5), None);
        assert_eq!(heartbeat.beat(after(60), 7), Some(7));
        assert_eq!(heartbeat.beat(after(61), 9), None);
        assert_eq!(heartbeat.beat(after(121), 10), Some(3));
    }
}
