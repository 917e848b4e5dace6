//! How long texts wait for others to form a larger batch: a rule without clocks or threads.
//!
//! A text alone costs almost twice as much as one of a batch of eight. While the workers have time to spare, that does not
//! matter, and waiting would only delay the text. Near saturation it does: small batches keep the workers busy, and slow
//! the server that shares their processors. So texts wait as long as the recent load suggests, at most [`MAX_LINGER`], and
//! not at all if there are enough for a full batch. Producers of Apache Kafka have the same setting, `linger.ms`.

use std::time::{Duration, Instant};

/// The time constant of the average load.
const AVERAGE_TIME: Duration = Duration::from_millis(200);
/// Up to the first load texts do not wait; from the second one on they wait the longest.
const LIGHT_LOAD: f64 = 0.5;
const FULL_LOAD: f64 = 0.8;
/// About as long as two batches of short texts. Measured near saturation: longer waits save little more.
const MAX_LINGER: Duration = Duration::from_millis(12);

/// The recent load, and since when texts wait.
#[derive(Debug)]
pub(crate) struct Linger {
    /// The average share of workers that run a batch.
    load: f64,
    /// That share from `since` on.
    busy: f64,
    since: Instant,
    /// Texts wait so long whatever the load.
    least: Duration,
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
    pub(crate) fn new(now: Instant) -> Self {
        Linger {
            load: 0.0,
            busy: 0.0,
            since: now,
            least: Duration::ZERO,
            round: Round::NoTexts,
        }
    }

    /// Texts wait at least so long, unless there are enough for a full batch or none follows.
    pub(crate) fn at_least(now: Instant, least: Duration) -> Self {
        Linger {
            least,
            ..Linger::new(now)
        }
    }

    /// From now on so many of the workers run a batch.
    pub(crate) fn observe(&mut self, now: Instant, busy: usize, workers: usize) {
        self.load = self.load_at(now);
        self.since = now;
        self.busy = busy as f64 / workers.max(1) as f64;
    }

    /// A text has been queued.
    pub(crate) fn text_arrived(&mut self, now: Instant) {
        if let Round::NoTexts = self.round {
            self.round = Round::Gathering(now);
        }
    }

    /// The texts that wait need not wait longer.
    pub(crate) fn flush(&mut self) {
        if let Round::Gathering(_) = self.round {
            self.round = Round::Cutting;
        }
    }

    /// No text is left in the queue.
    pub(crate) fn all_texts_taken(&mut self) {
        self.round = Round::NoTexts;
    }

    /// Until when the texts wait; `None` if a batch is cut now.
    pub(crate) fn wait_until(&mut self, now: Instant, is_full: bool) -> Option<Instant> {
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
        MAX_LINGER.mul_f64(share.clamp(0.0, 1.0)).max(self.least)
    }

    /// An exponential average in continuous time.
    fn load_at(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        let kept = (-elapsed.as_secs_f64() / AVERAGE_TIME.as_secs_f64()).exp();
        self.busy + (self.load - self.busy) * kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// After a second in which so many of two workers were busy.
    fn under_load(busy: usize) -> (Linger, Instant) {
        let begin = Instant::now();
        let mut linger = Linger::new(begin);
        linger.observe(begin, busy, 2);
        (linger, begin + Duration::from_secs(1))
    }

    #[test]
    fn a_text_waits_only_while_the_workers_are_busy() {
        for busy in [0, 1] {
            let (mut linger, now) = under_load(busy);
            linger.text_arrived(now);
            assert_eq!(linger.wait_until(now, false), None, "{busy} of 2 busy");
        }
        let (mut linger, now) = under_load(2);
        linger.text_arrived(now);
        assert_eq!(linger.wait_until(now, false), Some(now + MAX_LINGER));
    }

    #[test]
    fn it_waits_no_longer_than_the_first_of_its_round() {
        let (mut linger, first) = under_load(2);
        linger.text_arrived(first);
        let second = first + 5 * MILLISECOND;
        linger.text_arrived(second);
        assert_eq!(linger.wait_until(second, false), Some(first + MAX_LINGER));
        assert_eq!(linger.wait_until(first + MAX_LINGER, false), None);
        // What is left belongs to the same round.
        linger.text_arrived(first + MAX_LINGER);
        assert_eq!(linger.wait_until(first + MAX_LINGER, false), None);
        linger.all_texts_taken();
        let next = first + 20 * MILLISECOND;
        linger.text_arrived(next);
        assert_eq!(linger.wait_until(next, false), Some(next + MAX_LINGER));
    }

    #[test]
    fn nothing_waits_for_a_full_batch_or_after_a_flush() {
        let (mut linger, now) = under_load(2);
        linger.text_arrived(now);
        assert_eq!(linger.wait_until(now, true), None);
        let (mut linger, now) = under_load(2);
        linger.text_arrived(now);
        linger.flush();
        assert_eq!(linger.wait_until(now, false), None);
    }

    #[test]
    fn the_load_is_that_of_the_last_few_tenths_of_a_second() {
        let (mut linger, now) = under_load(2);
        linger.observe(now, 0, 2);
        let later = now + Duration::from_secs(1);
        linger.text_arrived(later);
        assert_eq!(linger.wait_until(later, false), None);
    }
}
