//! Which server gets a batch: the one that is expected to finish first.
//!
//! What is known of a server is what it took for each token that was outstanding there. A slow one takes longer for each,
//! a busy one has more of them. In balance all servers finish at the same time, however many of them there are.

use std::time::{Duration, Instant};

/// The weight of the newest observation.
const WEIGHT: f64 = 0.25;
/// An observation that is this old counts half: a server that was slow once gets another try.
const HALF_LIFE: Duration = Duration::from_secs(5);

/// How fast a server was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Seconds for each outstanding token, and when that was last seen.
    seen: Option<(f64, Instant)>,
}

impl Pace {
    /// A request took `elapsed`, and `outstanding` tokens were there when it began, its own included.
    pub(super) fn observe(&mut self, now: Instant, elapsed: Duration, outstanding: usize) {
        let newest = elapsed.as_secs_f64() / outstanding.max(1) as f64;
        let cost = self
            .seen
            .map_or(newest, |(cost, _)| cost + WEIGHT * (newest - cost));
        self.seen = Some((cost, now));
    }

    /// A request was given up after `elapsed`: it would have taken longer.
    pub(super) fn observe_at_least(&mut self, now: Instant, elapsed: Duration, outstanding: usize) {
        let least = elapsed.as_secs_f64() / outstanding.max(1) as f64;
        if self.seen.is_some_and(|(cost, _)| least > cost) {
            self.observe(now, elapsed, outstanding);
        }
    }

    /// Seconds for a token, as one would expect now: the older the observation, the nearer to the best of the fleet.
    fn cost(&self, now: Instant, best: f64) -> f64 {
        let Some((cost, seen)) = self.seen else {
            return best;
        };
        let age = now.saturating_duration_since(seen).as_secs_f64() / HALF_LIFE.as_secs_f64();
        best + (cost - best).max(0.0) * 0.5_f64.powf(age)
    }
}

/// A server that may get the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub index: usize,
    pub pace: Pace,
    /// Tokens that are outstanding there.
    pub outstanding: usize,
}

/// The server that is expected to finish a batch of this many tokens first.
pub(super) fn choose(candidates: &[Candidate], tokens: usize, now: Instant) -> Option<usize> {
    let known = candidates
        .iter()
        .filter_map(|candidate| candidate.pace.seen);
    let best = known
        .map(|(cost, _)| cost)
        .min_by(f64::total_cmp)
        .unwrap_or(1.0);
    let expected = |candidate: &Candidate| {
        candidate.pace.cost(now, best) * (candidate.outstanding + tokens.max(1)) as f64
    };
    let first = candidates
        .iter()
        .min_by(|one, other| expected(one).total_cmp(&expected(other)))?;
    Some(first.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(now: Instant, milliseconds: u64) -> Pace {
        let mut pace = Pace::default();
        pace.observe(now, Duration::from_millis(milliseconds), 100);
        pace
    }

    /// Tokens that each server gets of 400 batches, all of which are under way at once.
    fn shares(paces: &[Pace], now: Instant) -> Vec<usize> {
        let mut outstanding = vec![0; paces.len()];
        for _ in 0..400 {
            let candidates = paces.iter().zip(&outstanding).enumerate();
            let candidates: Vec<_> = candidates
                .map(|(index, (pace, outstanding))| Candidate {
                    index,
                    pace: *pace,
                    outstanding: *outstanding,
                })
                .collect();
            outstanding[choose(&candidates, 10, now).unwrap()] += 10;
        }
        outstanding
    }

    #[test]
    fn equal_servers_get_equal_shares_and_a_slow_one_less() {
        let now = Instant::now();
        assert_eq!(shares(&[Pace::default(); 4], now), [1000; 4]);
        let shares = shares(&[pace(now, 100), pace(now, 100), pace(now, 1000)], now);
        assert!(shares[0].abs_diff(shares[1]) <= 10, "{shares:?}");
        assert!((150..250).contains(&shares[2]), "{shares:?}");
    }

    #[test]
    fn a_server_that_was_slow_long_ago_is_tried_again() {
        let now = Instant::now();
        let paces = [pace(now, 100), pace(now, 5000)];
        assert!(shares(&paces, now)[1] < 200);
        assert!(shares(&paces, now + Duration::from_secs(60))[1] > 1900);
    }

    #[test]
    fn without_a_server_there_is_no_choice() {
        assert_eq!(choose(&[], 1, Instant::now()), None);
    }
}
