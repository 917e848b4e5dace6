//! How long texts wait for others to form a larger batch: a rule without clocks or threads.
//!
//! A batch of one text costs almost twice as much per text as one of eight. While the workers have time to spare, that
//! does not matter, and a text that waits only loses time. Near saturation it does matter: small batches keep the workers
//! busy, and the server that shares their cores slow. So texts wait as the recent load asks, up to [`MAX_LINGER`], and
//! never where there is a full batch. Producers of Apache Kafka know the same trade as `linger.ms`.

use std::time::{Duration, Instant};

/// The time constant of the average load.
const AVERAGE_TIME: Duration = Duration::from_millis(200);
/// Up to this share of busy time texts do not wait; from the second one on they wait the longest.
const LIGHT_LOAD: f64 = 0.5;
const FULL_LOAD: f64 = 0.8;
/// Less than the triggers' followers need for one round near saturation.
const MAX_LINGER: Duration = Duration::from_millis(12);

/// The recent load, and since when texts wait.
#[derive(Debug)]
pub(super) struct Linger {
    /// The average share of workers that run a batch.
    load: f64,
    /// That share from `since` on.
    busy: f64,
    since: Instant,
    round: Round,
}

/// Texts are gathered, and then all that are there are cut into batches.
#[derive(Debug, Clone, Copy)]
enum Round {
    NoTexts,
    /// The first text came at this time.
    Gathering(Instant),
    Cutting,
}

impl Linger {
    pub(super) fn new(now: Instant) -> Self {
        Linger {
            load: 0.0,
            busy: 0.0,
            since: now,
            round: Round::NoTexts,
        }
    }

    /// From now on so many of the workers run a batch.
    pub(super) fn observe(&mut self, now: Instant, busy: usize, workers: usize) {
        self.load = self.load_at(now);
        self.since = now;
        self.busy = busy as f64 / workers.max(1) as f64;
    }

    pub(super) fn text_arrived(&mut self, now: Instant) {
        if let Round::NoTexts = self.round {
            self.round = Round::Gathering(now);
        }
    }

    /// The texts that wait need not wait longer.
    pub(super) fn flush(&mut self) {
        if let Round::Gathering(_) = self.round {
            self.round = Round::Cutting;
        }
    }

    pub(super) fn all_texts_taken(&mut self) {
        self.round = Round::NoTexts;
    }

    /// Until when the texts wait; `None` if a batch is cut now.
    pub(super) fn wait_until(&mut self, now: Instant, is_full: bool) -> Option<Instant> {
        let Round::Gathering(begin) = self.round else {
            return None;
        };
        let until = begin + self.longest_wait(now);
        if is_full || until <= now {
            self.round = Round::Cutting;
            return None;
        }
        Some(until)
    }

    fn longest_wait(&self, now: Instant) -> Duration {
        let share = (self.load_at(now) - LIGHT_LOAD) / (FULL_LOAD - LIGHT_LOAD);
        MAX_LINGER.mul_f64(share.clamp(0.0, 1.0))
    }

    /// An exponential average in continuous time.
    fn load_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        let kept = (-elapsed.as_secs_f64() / AVERAGE_TIME.as_secs_f64()).exp();
        self.busy + (self.load - self.busy) * kept
    }
}
