//! What a server lets us send: the pauses that it asks for, what it says is left, and how many requests at a time it took
//! before it refused one.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;

use super::limit_headers::{Budget, MAX_PAUSE, budget};
use super::patience::Patience;
use crate::backoff::Backoff;

/// A server that asks for less is treated as one that does not say for how long.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_JITTER: Duration = Duration::from_millis(500);

/// The limits of one server.
pub(super) struct Limits {
    /// Nothing is sent before.
    paused_until: Option<Instant>,
    /// Whether the server said for how long.
    is_announced: bool,
    requests: Option<Budget>,
    tokens: Option<Budget>,
    /// Requests at a time. Infinite until the server refuses one or is too slow: halved then, and more by one with each round of answers.
    window: f64,
    backoff: Backoff,
}

/// Why nothing can be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// When to ask again; `None` if an answer decides that.
    pub until: Option<Instant>,
    /// Whether the server itself said so.
    pub is_announced: bool,
}

impl Limits {
    pub(super) fn new(patience: &Patience) -> Self {
        Self {
            paused_until: None,
            is_announced: false,
            requests: None,
            tokens: None,
            window: f64::INFINITY,
            backoff: Backoff::new(patience.first_pause, patience.max_pause),
        }
    }

    /// Whether a request with this many tokens may be sent beside those that are in flight.
    pub(super) fn admits(&self, now: Instant, in_flight: usize, tokens: usize) -> Result<(), Wait> {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(Wait {
                until: Some(until),
                is_announced: self.is_announced,
            });
        }
        let lacks = |budget: Option<Budget>, needed: u64| {
            let budget = budget.filter(|budget| budget.resets_at > now && budget.left < needed)?;
            Some(budget.resets_at)
        };
        // Tokens come back all the time; a request that needs more than there ever are is the server's to refuse.
        let until = lacks(self.requests, 1).max(lacks(self.tokens, tokens as u64));
        if until.is_some() {
            return Err(Wait {
                until,
                is_announced: true,
            });
        }
        if in_flight as f64 >= self.window {
            return Err(Wait {
                until: None,
                is_announced: false,
            });
        }
        Ok(())
    }

    /// A request with this many tokens is sent.
    pub(super) fn spend(&mut self, tokens: usize) {
        if let Some(budget) = &mut self.requests {
            budget.left = budget.left.saturating_sub(1);
        }
        if let Some(budget) = &mut self.tokens {
            budget.left = budget.left.saturating_sub(tokens as u64);
        }
    }

    /// Any answer: what the server says is left.
    pub(super) fn observe(&mut self, now: Instant, headers: &HeaderMap) {
        self.requests = budget(now, headers, "requests").or(self.requests);
        self.tokens = budget(now, headers, "tokens").or(self.tokens);
    }

    /// A request was answered with vectors.
    pub(super) fn succeeded(&mut self) {
        self.window += 1.0 / self.window;
        self.backoff.reset();
    }

    /// A request was refused for being one too many, of this many that were in flight. Says whether the server itself
    /// asks for a pause.
    pub(super) fn throttled(
        &mut self,
        now: Instant,
        in_flight: usize,
        asked: Option<Duration>,
    ) -> bool {
        // Others that were sent with it are refused with it, and are one event.
        let is_known = self.paused_until.is_some_and(|until| until > now);
        if !is_known {
            self.window = (in_flight as f64 / 2.0).clamp(1.0, self.window);
        }
        // No time at all is no answer to when.
        let asked = asked.filter(|asked| *asked >= MIN_PAUSE);
        let pause = match asked {
            // A little more, at random, so that many clients do not return in the same moment.
            Some(asked) => {
                asked.min(MAX_PAUSE) + MAX_JITTER.min(asked / 4).mul_f64(fastrand::f64())
            }
            None if is_known => return false,
            None => self.backoff.next_pause(),
        };
        let until = now + pause;
        if self.paused_until.is_none_or(|known| known < until) {
            self.paused_until = Some(until);
            self.is_announced = asked.is_some();
        }
        asked.is_some()
    }

    /// A request was not answered in time, of this many that were in flight.
    pub(super) fn congested(&mut self, in_flight: usize) {
        self.window = (in_flight as f64 / 2.0).clamp(1.0, self.window);
    }

    /// How long nothing is sent from now on.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let until = self.paused_until.filter(|until| *until > now)?;
        Some(until - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        list.iter().map(header).collect()
    }

    fn limits() -> Limits {
        Limits::new(&Patience::default())
    }

    #[test]
    fn nothing_is_sent_before_the_server_allows_it() {
        let now = Instant::now();
        let mut limits = limits();
        assert!(limits.throttled(now, 1, Some(Duration::from_secs(2))));
        let wait = limits.admits(now, 0, 1).unwrap_err();
        assert!(wait.is_announced && wait.until.unwrap() >= now + Duration::from_secs(2));
        assert_eq!(limits.admits(wait.until.unwrap(), 0, 1), Ok(()));
    }

    #[test]
    fn what_is_left_is_spent_and_comes_back() {
        let now = Instant::now();
        let mut limits = limits();
        limits.observe(
            now,
            &headers(&[
                ("x-ratelimit-remaining-requests", "2"),
                ("x-ratelimit-reset-requests", "10s"),
                ("x-ratelimit-remaining-tokens", "100"),
                ("x-ratelimit-reset-tokens", "5s"),
            ]),
        );
        limits.spend(60);
        let wait = limits.admits(now, 0, 60).unwrap_err();
        assert_eq!(wait.until, Some(now + Duration::from_secs(5)));
        assert_eq!(limits.admits(now, 0, 40), Ok(()));
        limits.spend(40);
        let wait = limits.admits(now, 0, 1).unwrap_err();
        assert_eq!(wait.until, Some(now + Duration::from_secs(10)));
        assert_eq!(limits.admits(now + Duration::from_secs(10), 0, 60), Ok(()));
    }

    #[test]
    fn a_storm_halves_the_window_once_and_answers_open_it_again() {
        let now = Instant::now();
        let mut limits = limits();
        for _ in 0..8 {
            assert!(!limits.throttled(now, 8, None));
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(limits.admits(later, 3, 1), Ok(()));
        assert!(limits.admits(later, 4, 1).is_err());
        for _ in 0..8 {
            limits.succeeded();
        }
        assert_eq!(limits.admits(later, 4, 1), Ok(()));
    }
}
