//! The service manager of a daemon: starts it again whenever it has ended.

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
    /// Not to be started again for now.
    lost: bool,
}

impl Keeper {
    /// Starts the daemon with this number, and keeps it running until the keeper is dropped.
    pub fn start(home: Home, number: usize, record: Arc<Record>) -> Self {
        let state = Arc::new(Mutex::new(State {
            daemon: Daemon::start(&home, number, ""),
            armed: false,
            next: String::new(),
            lost: false,
        }));
        let theirs = Arc::clone(&state);
        let keeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let mut state = theirs.lock().expect("no panics");
                if state.lost {
                    continue;
                }
                let Some(ending) = state.daemon.ended() else {
                    continue;
                };
                if let Ending::Crash(status) = ending {
                    record.violation(format!("the daemon ended by itself: {status}"));
                }
                record.disturbed();
                let failpoints = std::mem::take(&mut state.next);
                state.armed = !failpoints.is_empty();
                state.daemon = Daemon::start(&home, number, &failpoints);
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

    /// Kills or stops the daemon, and leaves it at that until [`find`](Self::find).
    pub fn lose(&self, signal: Signal) {
        let mut state = self.lock();
        state.lost = true;
        state.daemon.signal(signal);
    }

    /// A stopped daemon goes on, a dead one is started again.
    pub fn find(&self) {
        let mut state = self.lock();
        state.daemon.signal(Signal::SIGCONT);
        state.lost = false;
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
