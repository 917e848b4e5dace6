//! Who may send to which server, and when: breakers, limits and the spread of batches, for all callers of a fleet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use tokio::sync::Notify;

use super::breaker::Breaker;
use super::limits::{Limits, Wait};
use super::patience::Patience;
use super::spread::{Candidate, Pace, choose};

/// The turns at the servers of a fleet.
pub(super) struct Turns {
    shared: Mutex<Shared>,
    /// A turn has ended, so that others may be free.
    changed: Notify,
    trouble: Duration,
}

struct Shared {
    servers: Vec<Server>,
    /// When something succeeded last, or a server asked for a pause.
    progress: Instant,
}

/// What is known of a server.
struct Server {
    breaker: Breaker,
    limits: Limits,
    pace: Pace,
    in_flight: usize,
    /// Tokens in flight.
    outstanding: usize,
    requests: u64,
    failures: u64,
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

/// The right to send one request to a server. Dropped without an outcome, it leaves no trace.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    pub server: usize,
    tokens: usize,
    /// Tokens that were outstanding when it began, its own included.
    outstanding: usize,
    begun: Instant,
    is_trial: bool,
    is_finished: bool,
}

/// How a request ended.
pub(super) enum Outcome {
    /// With vectors.
    Vectors,
    /// With an answer that says something of the request, and nothing of the server.
    Answered,
    /// With the news that it was one too many.
    Throttled(Option<Duration>),
    /// Without an answer that is one.
    Failed(String),
}

impl Turns {
    pub(super) fn new(servers: usize, patience: &Patience) -> Self {
        let server = || Server {
            breaker: Breaker::new(patience),
            limits: Limits::new(patience),
            pace: Pace::default(),
            in_flight: 0,
            outstanding: 0,
            requests: 0,
            failures: 0,
        };
        Self {
            shared: Mutex::new(Shared {
                servers: (0..servers).map(|_| server()).collect(),
                progress: Instant::now(),
            }),
            changed: Notify::new(),
            trouble: patience.trouble,
        }
    }

    /// When a caller that has tried since then gives up.
    pub(super) fn deadline(&self, since: Instant) -> Instant {
        self.lock().progress.max(since) + self.trouble
    }

    /// A turn at the best server but these, as soon as there is one; `None` at the deadline.
    ///
    /// Cancellation safe.
    pub(super) async fn take(
        &self,
        tokens: usize,
        except: &[usize],
        since: Instant,
    ) -> Option<Turn<'_>> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let wait = match self.try_take(tokens, except) {
                Ok(turn) => return Some(turn),
                Err(wait) => wait,
            };
            let now = Instant::now();
            let deadline = self.deadline(since);
            if wait.is_announced {
                // It is the server's wish, and no trouble.
                self.lock().progress = now;
            } else if now >= deadline {
                return None;
            }
            let until = wait.until.unwrap_or(deadline);
            let until = if wait.is_announced {
                until
            } else {
                until.min(deadline)
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// A turn at the best server but these, if there is one now.
    pub(super) fn try_take(&self, tokens: usize, except: &[usize]) -> Result<Turn<'_>, Wait> {
        let now = Instant::now();
        let mut shared = self.lock();
        let index = shared.choose(now, tokens, except)?;
        let server = &mut shared.servers[index];
        server.in_flight += 1;
        server.outstanding += tokens;
        server.requests += 1;
        server.limits.spend(tokens);
        Ok(Turn {
            turns: self,
            server: index,
            tokens,
            outstanding: server.outstanding,
            begun: now,
            is_trial: server.breaker.begin(),
            is_finished: false,
        })
    }

    /// Pends while the limits of all servers that are in order allow nothing more.
    ///
    /// Cancellation safe.
    pub(super) async fn ready(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let Err(wait) = self.lock().room(Instant::now()) else {
                return;
            };
            match wait.until {
                None => changed.await,
                Some(until) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                },
            }
        }
    }

    /// What a server says of its limits.
    pub(super) fn observe(&self, server: usize, headers: &HeaderMap) {
        self.lock().servers[server]
            .limits
            .observe(Instant::now(), headers);
    }

    /// Why a server is left out, of those that are.
    pub(super) fn reason(&self) -> Option<(usize, String)> {
        let shared = self.lock();
        let now = Instant::now();
        let open = |(index, server): (usize, &Server)| {
            let (_, reason) = server.breaker.open(now)?;
            Some((index, reason.to_owned()))
        };
        shared.servers.iter().enumerate().find_map(open)
    }

    /// The state of each server, by its name.
    pub(super) fn states<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<ServerState> {
        let now = Instant::now();
        let shared = self.lock();
        let state = |(server, name): (&Server, &str)| ServerState {
            server: name.to_owned(),
            requests: server.requests,
            failures: server.failures,
            in_flight: server.in_flight,
            left_out: server
                .breaker
                .open(now)
                .map(|(pause, reason)| (pause, reason.to_owned())),
            paused: server.limits.pause(now),
        };
        shared.servers.iter().zip(names).map(state).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn choose(&self, now: Instant, tokens: usize, except: &[usize]) -> Result<usize, Wait> {
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
    fn room(&self, now: Instant) -> Result<(), Wait> {
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
    fn admits(&self, now: Instant, tokens: usize) -> Result<(), Wait> {
        self.breaker.admits(now).map_err(|until| Wait {
            until,
            is_announced: false,
        })?;
        self.limits.admits(now, self.in_flight, tokens)
    }
}

/// The first of them that ends by itself.
fn soonest(waits: &[Wait]) -> Wait {
    let timed = waits.iter().filter(|wait| wait.until.is_some());
    let soonest = timed.min_by_key(|wait| wait.until).copied();
    soonest.unwrap_or(Wait {
        until: None,
        is_announced: false,
    })
}

impl Turn<'_> {
    /// The request has ended.
    pub(super) fn finish(mut self, outcome: Outcome) {
        let now = Instant::now();
        self.is_finished = true;
        let mut shared = self.turns.lock();
        let server = &mut shared.servers[self.server];
        let others = server.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Vectors => {
                server.breaker.succeeded();
                server.limits.succeeded();
                server.pace.observe(now, now - self.begun, self.outstanding);
                shared.progress = now;
            }
            Outcome::Answered => server.breaker.succeeded(),
            Outcome::Throttled(asked) => {
                server.failures += 1;
                // A server that counts requests is one that works.
                server.breaker.succeeded();
                server.limits.throttled(now, others + 1, asked);
                if asked.is_some() {
                    shared.progress = now;
                }
            }
            Outcome::Failed(reason) => {
                server.failures += 1;
                server.breaker.failed(now, reason);
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut shared = self.turns.lock();
        let server = &mut shared.servers[self.server];
        server.in_flight = server.in_flight.saturating_sub(1);
        server.outstanding = server.outstanding.saturating_sub(self.tokens);
        if self.is_trial && !self.is_finished {
            server.breaker.trial_dropped(Instant::now());
        }
        drop(shared);
        self.turns.changed.notify_waiters();
    }
}
