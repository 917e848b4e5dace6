//! How many requests of a service are under way, and how many may be.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::embedding::schedule::scheduler::lock;

/// How many requests are under way.
pub(super) struct InFlight {
    count: Mutex<usize>,
    most: AtomicUsize,
    changed: Notify,
}

impl InFlight {
    pub(super) fn at_most(most: usize) -> Self {
        Self {
            count: Mutex::default(),
            most: AtomicUsize::new(most),
            changed: Notify::new(),
        }
    }

    /// At most so many from now on.
    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most.max(1), Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Waits until there is room for a request, and counts it. One waits at a time.
    pub(super) async fn enter(&self) {
        loop {
            let changed = self.changed.notified();
            {
                let mut count = lock(&self.count);
                if *count < self.most.load(Ordering::Relaxed) {
                    *count += 1;
                    return;
                }
            }
            changed.await;
        }
    }

    pub(super) fn leave(&self) {
        *lock(&self.count) -= 1;
        self.changed.notify_one();
    }
}
