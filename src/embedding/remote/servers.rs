//! What all callers of a fleet know of its servers.

use std::time::{Duration, Instant};

use super::breaker::Breaker;
use super::limits::{Limits, Wait};
use super::patience::Patience;
use super::spread::{Candidate, Pace, choose};

/// The servers, and how the fleet does.
pub(super) struct Shared {
    pub servers: Vec<Server>,
    /// When something succeeded last, or a server asked for a pause.
    pub progress: Instant,
}

/// What is known of a server.
pub(super) struct Server {
    pub breaker: Breaker,
    pub limits: Limits,
    pub pace: Pace,
    pub in_flight: usize,
    /// Tokens in flight.
    pub outstanding: usize,
    pub requests: u64,
    pub failures: u64,
}

/// A server as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// The provider and the host.
    pub server: String,
    /// Requests that were sent.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Those that have no answer yet.
    pub in_flight: usize,
    /// For how long the server is left out, and why.
    pub left_out: Option<(Duration, String)>,
    /// For how long nothing is sent, because the server has asked for it.
    pub paused: Option<Duration>,
}

impl ServerState {
    /// Why no text is sent to the server now; `None` while it takes texts.
    pub fn trouble(&self) -> Option<String> {
        match (&self.left_out, self.paused) {
            (Some((_, reason)), _) => Some(reason.clone()),
            (None, Some(_)) => {
                Some("it has had too many requests for now, and asked for a pause".to_owned())
            }
            (None, None) => None,
        }
    }
}

impl Shared {
    /// The best server but these, or what to wait for.
    pub(super) fn choose(
        &self,
        now: Instant,
        tokens: usize,
        except: &[usize],
    ) -> Result<usize, Wait> {
        let mut waits = Vec::new();
        let mut candidates = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            if except.contains(&index) {
                continue;
            }
            match server.admits(now, tokens) {
                Ok(()) => candidates.push(Candidate {
                    index,
                    pace: server.pace,
                    outstanding: server.outstanding,
                }),
                Err(wait) => waits.push(wait),
            }
        }
        choose(&candidates, tokens, now).ok_or_else(|| soonest(&waits))
    }

    /// Whether the limits of a server allow one more request. Those that are left out count only if all are.
    pub(super) fn room(&self, now: Instant) -> Result<(), Wait> {
        let in_order = self
            .servers
            .iter()
            .filter(|server| server.breaker.admits(now).is_ok());
        let mut waits = Vec::new();
        for server in in_order {
            match server.limits.admits(now, server.in_flight, 1) {
                Ok(()) => return Ok(()),
                Err(wait) => waits.push(wait),
            }
        }
        match waits.is_empty() {
            true => Ok(()),
            false => Err(soonest(&waits)),
        }
    }
}

impl Server {
    pub(super) fn new(patience: &Patience) -> Self {
        Self {
            breaker: Breaker::new(patience),
            limits: Limits::new(patience),
            pace: Pace::default(),
            in_flight: 0,
            outstanding: 0,
            requests: 0,
            failures: 0,
        }
    }

    /// What a person sees of it, under this name.
    pub(super) fn state(&self, now: Instant, name: &str) -> ServerState {
        let left_out = self.breaker.open(now);
        ServerState {
            server: name.to_owned(),
            requests: self.requests,
            failures: self.failures,
            in_flight: self.in_flight,
            left_out: left_out.map(|(pause, reason)| (pause, reason.to_string())),
            paused: self.limits.pause(now),
        }
    }

    fn admits(&self, now: Instant, tokens: usize) -> Result<(), Wait> {
        self.breaker.admits(now).map_err(|until| Wait {
            until,
            is_announced: false,
        })?;
        self.limits.admits(now, self.in_flight, tokens)
    }
}

/// The first of them that ends by itself. A pause that one server asks for excuses all.
fn soonest(waits: &[Wait]) -> Wait {
    Wait {
        until: waits.iter().filter_map(|wait| wait.until).min(),
        is_announced: waits.iter().any(|wait| wait.is_announced),
    }
}
