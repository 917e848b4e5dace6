//! What each inference thread passes before it takes work.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::throttle::Throttle;
use crate::failpoint;

/// A thread with a smaller share than this waits until it is larger.
const MIN_DUTY: f64 = 0.05;

/// Tells each inference thread whether it may work, and for how much of the time.
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Threads that have work, rest, or are kept from it: those that do not wait for work.
    engaged: AtomicUsize,
}

struct State {
    /// In cores.
    allowed: f64,
    closed: bool,
    /// With the numbers of their threads.
    throttles: Vec<(usize, Arc<Throttle>)>,
}

impl Gate {
    /// An open gate.
    pub(crate) fn new() -> Self {
        Gate {
            state: Mutex::new(State {
                allowed: failpoint::number("inference-share").unwrap_or(f64::INFINITY),
                closed: false,
                throttles: Vec::new(),
            }),
            changed: Condvar::new(),
            engaged: AtomicUsize::new(0),
        }
    }

    /// Waits until the thread with this number (from 0 on) may work. Returns whether the gate is open. Before it waits, it
    /// calls `hand_over`.
    pub(super) fn admit(&self, thread: usize, hand_over: impl Fn()) -> bool {
        let mut has_handed_over = false;
        let mut state = self.lock();
        while !state.closed && thread > 0 && duty(state.allowed, thread) < MIN_DUTY {
            if !std::mem::replace(&mut has_handed_over, true) {
                drop(state);
                hand_over();
                state = self.lock();
                continue;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }

    /// Does the work of the calling thread: `take` waits for work, and `run` does it. Before the gate keeps the thread out,
    /// `hand_over` tells a thread that waits for work to look again: what this one has just prepared for itself would
    /// otherwise lie there until something else comes. Returns when `take` returns nothing, or the gate is closed.
    pub(crate) fn work<W>(
        &self,
        thread: usize,
        take: impl Fn() -> Option<W>,
        run: impl Fn(&Throttle, W),
        hand_over: impl Fn(),
    ) {
        let throttle = self.throttle(thread);
        self.engage();
        while self.admit(thread, &hand_over) {
            self.engaged.fetch_sub(1, Ordering::Relaxed);
            let Some(work) = take() else {
                return;
            };
            self.engage();
            run(&throttle, work);
        }
        self.engaged.fetch_sub(1, Ordering::Relaxed);
    }

    /// The throttle of the calling thread.
    fn throttle(&self, thread: usize) -> Arc<Throttle> {
        let throttle = Arc::new(Throttle::of_this_thread());
        let mut state = self.lock();
        throttle.set_duty(duty(state.allowed, thread));
        state.throttles.push((thread, throttle.clone()));
        throttle
    }

    fn engage(&self) {
        if self.engaged.fetch_add(1, Ordering::Relaxed) == 0 {
            // The monitor may wait for this. It holds the lock from its question to its wait.
            drop(self.lock());
            self.changed.notify_all();
        }
    }

    /// From now on the threads may use so many cores together.
    pub(super) fn allow(&self, cores: f64) {
        let mut state = self.lock();
        state.allowed = cores;
        for (thread, throttle) in &state.throttles {
            throttle.set_duty(duty(cores, *thread));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// How many cores the threads may use together; infinite while inference does not yield.
    pub(crate) fn allowed(&self) -> f64 {
        self.lock().allowed
    }

    /// Waits until a thread has work. Returns whether the gate is open.
    pub(super) fn wait_until_engaged(&self) -> bool {
        let mut state = self.lock();
        while !state.closed && self.engaged.load(Ordering::Relaxed) == 0 {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }

    /// Whether a thread has work now.
    pub(super) fn is_engaged(&self) -> bool {
        self.engaged.load(Ordering::Relaxed) > 0
    }

    /// Waits for so long. Returns whether the gate is open; returns early if it is closed.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Ends all waiting.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock, so a poisoned one still guards sound data.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The share of its time that a thread may work: the first threads work all the time, and the last one with what is left.
fn duty(allowed: f64, thread: usize) -> f64 {
    (allowed - thread as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "these values are exact")]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn the_last_core_is_shared_by_time() {
        let duties = |allowed| [0, 1, 2].map(|thread| duty(allowed, thread));
        assert_eq!(duties(3.0), [1.0, 1.0, 1.0]);
        assert_eq!(duties(1.25), [1.0, 0.25, 0.0]);
        assert_eq!(duties(0.25), [0.25, 0.0, 0.0]);
        assert_eq!(duties(f64::INFINITY), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn a_thread_without_a_share_waits_until_it_has_one() {
        let gate = Arc::new(Gate::new());
        assert!(gate.admit(1, || ()));
        gate.allow(0.5);
        assert!(gate.admit(0, || ()));
        let (sender, admitted) = channel();
        let waiting = gate.clone();
        let thread = thread::spawn(move || sender.send(waiting.admit(1, || ())));
        assert!(admitted.try_recv().is_err());
        gate.allow(2.0);
        assert_eq!(admitted.recv(), Ok(true));
        thread.join().expect("it ends").expect("it is received");
    }

    #[test]
    fn a_thread_that_is_kept_out_hands_over_what_it_has_prepared() {
        let gate = Arc::new(Gate::new());
        let (sender, handed_over) = channel();
        let working = gate.clone();
        let thread = thread::spawn(move || {
            let lowered = working.clone();
            // Its share is lowered while it works.
            let run = |_: &Throttle, ()| lowered.allow(0.5);
            working.work(1, || Some(()), run, || sender.send(()).unwrap());
        });
        handed_over
            .recv_timeout(Duration::from_secs(60))
            .expect("another thread is told");
        gate.close();
        thread.join().unwrap();
    }

    #[test]
    fn a_closed_gate_lets_nobody_wait() {
        let gate = Arc::new(Gate::new());
        gate.allow(0.1);
        let waiting: Vec<_> = (0..8)
            .map(|number| {
                let gate = gate.clone();
                thread::spawn(move || {
                    gate.work(number, || Some(()), |_, ()| thread::yield_now(), || ());
                })
            })
            .collect();
        gate.close();
        waiting
            .into_iter()
            .for_each(|thread| thread.join().expect("it ends"));
        assert!(!gate.wait_until_engaged() && !gate.pause(Duration::from_secs(3600)));
    }
}
