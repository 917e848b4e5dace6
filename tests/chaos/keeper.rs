//! The service manager of a schedule: starts the daemon again whenever it has ended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::AbortHandle;

use super::daemon::{Daemon, Ending, Home};
use super::record::Record;

pub struct Keeper {
    state: Arc<Mutex<State>>,
    keeping: AbortHandle,
}

struct State {
    daemon: Daemon,
    /// Failpoints of the daemon that runs.
    armed: bool,
    /// Failpoints of the next one.
    next: String,
}

impl Keeper {
    /// Starts a daemon, and keeps one running until it is dropped.
    pub fn start(home: Home, record: Arc<Record>) -> Self {
        let state = Arc::new(Mutex::new(State {
            daemon: Daemon::start(&home, ""),
            armed: false,
            next: String::new(),
        }));
        let theirs = Arc::clone(&state);
        let keeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let mut state = theirs.lock().expect("no panics");
                let Some(ending) = state.daemon.ended() else {
                    continue;
                };
                if let Ending::Crash(status) = ending {
                    record.violation(format!("the daemon ended by itself: {status}"));
                }
                record.disturbed();
                let failpoints = std::mem::take(&mut state.next);
                state.armed = !failpoints.is_empty();
                state.daemon = Daemon::start(&home, &failpoints);
                record.returned();
            }
        });
        Self {
            state,
            keeping: keeping.abort_handle(),
        }
    }

    pub fn signal(&self, signal: Signal) {
        self.lock().daemon.signal(signal);
    }

    /// Kills the daemon; the next one has these failpoints.
    pub fn kill_and_arm(&self, failpoints: &str) {
        let mut state = self.lock();
        failpoints.clone_into(&mut state.next);
        state.daemon.signal(Signal::SIGKILL);
    }

    /// No failpoints from now on.
    pub fn disarm(&self) {
        let mut state = self.lock();
        state.next.clear();
        if state.armed {
            state.daemon.signal(Signal::SIGKILL);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panics")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}
