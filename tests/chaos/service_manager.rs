//! The service manager of a daemon: starts it again when it has ended.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::Process;
use tokio::task::AbortHandle;

use super::daemon::{DaemonConfig, Ending};
use super::record::Record;

const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub struct ServiceManager {
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

struct State {
    daemon: Process,
    /// The running daemon has failpoints.
    armed: bool,
    /// The failpoints of the next daemon.
    next: String,
    /// The daemon is not started again for now.
    is_down: bool,
}

impl ServiceManager {
    /// Starts the daemon with this number, and keeps it running until the manager is dropped.
    pub fn start(config: DaemonConfig, number: usize, record: Arc<Record>) -> Self {
        let state = Arc::new(Mutex::new(State {
            daemon: config.start(number, ""),
            armed: false,
            next: String::new(),
            is_down: false,
        }));
        let theirs = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(POLL_INTERVAL).await;
                let mut state = theirs.lock().expect("no panics");
                if !state.is_down {
                    state.restart_if_ended(&config, number, &record);
                }
            }
        });
        Self {
            state,
            task: task.abort_handle(),
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

    /// Kills or stops the daemon, and does not start it again until [`bring_back`](Self::bring_back).
    pub fn take_down(&self, signal: Signal) {
        let mut state = self.lock();
        state.is_down = true;
        state.daemon.signal(signal);
    }

    /// Continues a stopped daemon, restarts a dead one.
    pub fn bring_back(&self) {
        let mut state = self.lock();
        state.daemon.signal(Signal::SIGCONT);
        state.is_down = false;
    }

    /// Removes all failpoints.
    pub fn disarm(&self) {
        let mut state = self.lock();
        state.next.clear();
        if state.armed {
            state.daemon.signal(Signal::SIGKILL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panics")
    }
}

impl State {
    fn restart_if_ended(&mut self, config: &DaemonConfig, number: usize, record: &Record) {
        let Some(status) = self.daemon.exit_status() else {
            return;
        };
        if let Ending::Crash(status) = Ending::from(status) {
            record.violation(format!("the daemon ended by itself: {status}"));
        }
        record.disturbed();
        let failpoints = std::mem::take(&mut self.next);
        self.armed = !failpoints.is_empty();
        self.daemon = config.start(number, &failpoints);
        record.recoverable();
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        self.task.abort();
    }
}
