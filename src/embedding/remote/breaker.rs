//! A circuit breaker: a server that fails is left out, and tried again with one request after a pause.
//!
//! ```text
//!  closed ── failures in a row ──▶ open ── pause is over ──▶ half open ── success ──▶ closed
//!                                   ▲                            │
//!                                   └───────── failure ──────────┘
//! ```

use std::time::{Duration, Instant};

use super::error::RemoteFailure;
use super::patience::Patience;
use crate::backoff::Backoff;

/// Failures in a row after which a server is left out.
const MAX_FAILURES: u32 = 3;

/// The breaker of one server.
pub(super) struct Breaker {
    state: State,
    failures: u32,
    backoff: Backoff,
    /// Why it last failed.
    reason: Option<RemoteFailure>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

impl Breaker {
    pub(super) fn new(patience: &Patience) -> Self {
        Self {
            state: State::Closed,
            failures: 0,
            backoff: Backoff::new(patience.first_pause, patience.max_pause),
            reason: None,
        }
    }

    /// Whether a request may be sent; otherwise when to ask again, if time decides that.
    pub(super) fn admits(&self, now: Instant) -> Result<(), Option<Instant>> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } if until <= now => Ok(()),
            State::Open { until } => Err(Some(until)),
            State::HalfOpen => Err(None),
        }
    }

    /// A request that is admitted is sent; whether it is the one that tries a server that failed.
    pub(super) fn begin(&mut self) -> bool {
        let is_trial = matches!(self.state, State::Open { .. });
        if is_trial {
            self.state = State::HalfOpen;
        }
        is_trial
    }

    pub(super) fn succeeded(&mut self) {
        self.state = State::Closed;
        self.failures = 0;
        self.backoff.reset();
    }

    pub(super) fn failed(&mut self, now: Instant, reason: RemoteFailure) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason);
        // Requests that were under way when it opened do not make the pause longer.
        let opens = match self.state {
            State::Closed => self.failures >= MAX_FAILURES,
            State::HalfOpen => true,
            State::Open { .. } => false,
        };
        if opens {
            let until = now + self.backoff.next_pause();
            self.state = State::Open { until };
        }
    }

    /// The request that tried the server was dropped before its answer: another one may try.
    pub(super) fn trial_dropped(&mut self, now: Instant) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }

    /// Why the server is left out, if it is.
    pub(super) fn open(&self, now: Instant) -> Option<(Duration, &RemoteFailure)> {
        let left = match self.state {
            State::Closed => return None,
            State::HalfOpen => Duration::ZERO,
            State::Open { until } => until.saturating_duration_since(now),
        };
        Some((left, self.reason.as_ref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(reason: &str) -> RemoteFailure {
        RemoteFailure::Unreachable {
            reason: reason.into(),
        }
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(&Patience::default());
        for _ in 0..MAX_FAILURES {
            assert_eq!(breaker.admits(now), Ok(()));
            assert!(!breaker.begin());
            breaker.failed(now, failure("down"));
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_one_success_of_one_trial() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let until = breaker.admits(now).unwrap_err().unwrap();
        assert!(until > now);
        assert_eq!(breaker.admits(until), Ok(()));
        assert!(breaker.begin());
        // Nothing else is sent until that request has its answer.
        assert_eq!(breaker.admits(until), Err(None));
        breaker.succeeded();
        assert_eq!(breaker.admits(until), Ok(()));
        assert_eq!(breaker.open(until), None);
    }

    #[test]
    fn a_trial_that_fails_opens_it_for_longer() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let first = breaker.admits(now).unwrap_err().unwrap();
        breaker.begin();
        breaker.failed(first, failure("still down"));
        let second = breaker.admits(first).unwrap_err().unwrap();
        assert!(second - first >= (first - now) / 2);
        assert_eq!(*breaker.open(first).unwrap().1, failure("still down"));
    }

    #[test]
    fn late_failures_of_requests_under_way_do_not_lengthen_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let until = breaker.admits(now).unwrap_err();
        for _ in 0..50 {
            breaker.failed(now, failure("down"));
        }
        assert_eq!(breaker.admits(now).unwrap_err(), until);
    }

    #[test]
    fn a_trial_that_is_dropped_lets_another_one_try() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let until = breaker.admits(now).unwrap_err().unwrap();
        breaker.begin();
        breaker.trial_dropped(until);
        assert_eq!(breaker.admits(until), Ok(()));
    }

    #[test]
    fn failures_between_successes_open_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(&Patience::default());
        for _ in 0..20 {
            breaker.failed(now, failure("once"));
            breaker.failed(now, failure("twice"));
            breaker.succeeded();
        }
        assert_eq!(breaker.admits(now), Ok(()));
    }
}
