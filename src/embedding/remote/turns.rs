//! Who may send to which server, and when: breakers, limits and the spread of batches, for all callers of a fleet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use tokio::sync::Notify;

use super::error::RemoteFailure;
use super::limits::Wait;
use super::patience::Patience;
use super::servers::{Server, ServerState, Shared};

/// The turns at the servers of a fleet.
pub(super) struct Turns {
    shared: Mutex<Shared>,
    /// A turn has ended, so that others may be free.
    changed: Notify,
    trouble: Duration,
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

/// What a request has changed for a server.
pub(super) enum Change {
    /// It is left out from now on, for this reason.
    LeftOut(RemoteFailure),
    /// It is taken again.
    TakenAgain,
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
    Failed(RemoteFailure),
}

impl Turns {
    pub(super) fn new(servers: usize, patience: &Patience) -> Self {
        Self {
            shared: Mutex::new(Shared {
                servers: (0..servers).map(|_| Server::new(patience)).collect(),
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
    pub(super) fn reason(&self) -> Option<(usize, RemoteFailure)> {
        let shared = self.lock();
        let now = Instant::now();
        let open = |(index, server): (usize, &Server)| {
            let (_, reason) = server.breaker.open(now)?;
            Some((index, reason.clone()))
        };
        shared.servers.iter().enumerate().find_map(open)
    }

    /// The state of each server, by its name.
    pub(super) fn states<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<ServerState> {
        let now = Instant::now();
        let shared = self.lock();
        shared
            .servers
            .iter()
            .zip(names)
            .map(|(server, name)| server.state(now, name))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// The request has ended. Returns whether the server is left out from now on, or is taken again.
    pub(super) fn finish(mut self, outcome: Outcome) -> Option<Change> {
        let now = Instant::now();
        self.is_finished = true;
        let mut shared = self.turns.lock();
        let server = &mut shared.servers[self.server];
        let in_flight = server.in_flight;
        let was_open = self.is_trial || server.breaker.open(now).is_some();
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
                if server.limits.throttled(now, in_flight, asked) {
                    shared.progress = now;
                }
            }
            Outcome::Failed(reason) => {
                server.failures += 1;
                if let RemoteFailure::Timeout { .. } = reason {
                    // A server that is slow with so many requests may be in time with fewer.
                    server.limits.congested(in_flight);
                }
                server.breaker.failed(now, reason);
                server
                    .pace
                    .observe_at_least(now, now - self.begun, self.outstanding);
            }
        }
        match (was_open, shared.servers[self.server].breaker.open(now)) {
            (false, Some((_, reason))) => Some(Change::LeftOut(reason.clone())),
            (true, None) => Some(Change::TakenAgain),
            _ => None,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut shared = self.turns.lock();
        let server = &mut shared.servers[self.server];
        server.in_flight = server.in_flight.saturating_sub(1);
        server.outstanding = server.outstanding.saturating_sub(self.tokens);
        if !self.is_finished {
            let now = Instant::now();
            server
                .pace
                .observe_at_least(now, now - self.begun, self.outstanding);
            if self.is_trial {
                server.breaker.trial_dropped(now);
            }
        }
        drop(shared);
        self.turns.changed.notify_waiters();
    }
}
