//! What a stub has seen, and what it does next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::HeaderMap;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::behavior::{Act, Behavior};

/// A request that a stub has got.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The path.
    pub path: String,
    /// The version of HTTP, such as `HTTP/2.0`.
    pub version: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Value,
    /// The texts in it.
    pub texts: Vec<String>,
}

/// What the threads of a stub share.
#[derive(Default)]
pub(super) struct State {
    inner: Mutex<Inner>,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    pub requests: AtomicU64,
    pub embedded: AtomicU64,
    pub connections: AtomicU64,
    /// Thousandths of a failure that are due.
    failures_due: AtomicU64,
}

#[derive(Default)]
struct Inner {
    behavior: Behavior,
    script: VecDeque<Act>,
    seen: Vec<Seen>,
    /// Whether requests are kept, which a benchmark does not want.
    forgets: bool,
    room: Option<(usize, Arc<Semaphore>)>,
}

impl State {
    pub(super) fn set(&self, behavior: Behavior) {
        self.lock().behavior = behavior;
    }

    pub(super) fn behavior(&self) -> Behavior {
        self.lock().behavior.clone()
    }

    pub(super) fn extend(&self, script: impl IntoIterator<Item = Act>) {
        self.lock().script.extend(script);
    }

    pub(super) fn script_len(&self) -> usize {
        self.lock().script.len()
    }

    pub(super) fn forget(&self) {
        let mut inner = self.lock();
        inner.forgets = true;
        inner.seen.clear();
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// Notes a request, and says what to do with it.
    pub(super) fn begin(&self, seen: Seen) -> (Behavior, Act) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        if !inner.forgets {
            inner.seen.push(seen);
        }
        let act = inner.script.pop_front().unwrap_or(Act::Answer);
        (inner.behavior.clone(), act)
    }

    /// Counts a request until the guard is dropped.
    pub(super) fn in_flight(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.max_in_flight.fetch_max(now, Ordering::Relaxed);
        InFlight(self)
    }

    pub(super) fn current(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight.load(Ordering::Relaxed)
    }

    /// Room to compute a request, with so many at a time; 0: any number.
    pub(super) async fn room(&self, concurrency: usize) -> Option<OwnedSemaphorePermit> {
        let room = {
            let mut inner = self.lock();
            match &inner.room {
                _ if concurrency == 0 => return None,
                Some((size, room)) if *size == concurrency => room.clone(),
                _ => {
                    let room = Arc::new(Semaphore::new(concurrency));
                    inner.room = Some((concurrency, room.clone()));
                    room
                }
            }
        };
        room.acquire_owned().await.ok()
    }

    /// Whether this request fails, of those of which this share does.
    pub(super) fn fails(&self, rate: f64) -> bool {
        let step = (rate.clamp(0.0, 1.0) * 1000.0) as u64;
        let before = self.failures_due.fetch_add(step, Ordering::Relaxed);
        before / 1000 != (before + step) / 1000
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct InFlight<'a>(&'a State);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
