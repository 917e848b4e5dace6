//! What a service manager such as systemd hears of the daemon (sd_notify(3)): that it is ready, what it does, that it is
//! alive, and that it stops. Nothing is said where no `NOTIFY_SOCKET` asks for it.

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::pipeline::supervisor::pulse::LoopListener;
use crate::plural::form;
use crate::status::JobStatus;
use crate::status::board::Snapshot;
use crate::status::job_status::JobState;

/// WAL that a job may have yet to work off before it counts as a backlog: what is always under way on a busy server.
const SMALL_LAG_BYTES: u64 = 16 << 20;
/// The same as an age.
const SMALL_LAG_SECONDS: f64 = 5.0;

/// The service manager that has started this process.
pub struct ServiceManager {
    is_ready: bool,
    /// The time between two signs of life; `None` where none are expected.
    alive_interval: Option<Duration>,
    said_alive: Option<Instant>,
    status: String,
}

impl ServiceManager {
    /// The service manager, if there is one that wants to hear.
    pub fn find() -> Option<Box<dyn LoopListener>> {
        env::var_os("NOTIFY_SOCKET")?;
        Some(Box::new(ServiceManager {
            is_ready: false,
            // sd_watchdog_enabled(3) recommends half of the limit. Beats come once a second, so a third leaves time for two.
            alive_interval: sd_notify::watchdog_enabled().map(|limit| limit / 3),
            said_alive: None,
            status: String::new(),
        }))
    }

    fn says_alive(&mut self) -> bool {
        let Some(interval) = self.alive_interval else {
            return false;
        };
        if self
            .said_alive
            .is_some_and(|said| said.elapsed() < interval)
        {
            return false;
        }
        self.said_alive = Some(Instant::now());
        true
    }
}

impl LoopListener for ServiceManager {
    fn beat(&mut self, state: Option<Arc<Snapshot>>) {
        let mut said = Vec::new();
        if self.says_alive() {
            said.push(NotifyState::Watchdog);
        }
        let status = state.map(|state| summary(&state));
        if status.is_some() && !std::mem::replace(&mut self.is_ready, status.is_some()) {
            said.push(NotifyState::Ready);
        }
        if let Some(status) = status.filter(|status| *status != self.status) {
            self.status = status;
            said.push(NotifyState::Status(&self.status));
        }
        send(&said);
    }

    fn stopping(&mut self) {
        send(&[
            NotifyState::Stopping,
            NotifyState::Status("finishing what is under way"),
        ]);
    }
}

fn send(said: &[NotifyState]) {
    if said.is_empty() {
        return;
    }
    if let Err(error) = sd_notify::notify(said) {
        tracing::debug!("the service manager cannot be told: {error}");
    }
}

/// The state of the jobs in a few words: `12 jobs, 3 with a backlog, 1 failed`.
fn summary(state: &Snapshot) -> String {
    let count =
        |counts: fn(&JobStatus) -> bool| state.jobs.iter().filter(|job| counts(job)).count();
    let jobs = count(|job| job.state != JobState::Canceled);
    let mut summary = format!("{jobs} {}", form(jobs, "job", "jobs"));
    for (number, what) in [
        (count(has_backlog), "with a backlog"),
        (
            count(|job| job.state == JobState::Interrupted),
            "interrupted",
        ),
        (count(|job| job.state == JobState::Failed), "failed"),
    ] {
        if number > 0 {
            summary.push_str(&format!(", {number} {what}"));
        }
    }
    if state.daemon.jobs_database_error.is_some() {
        summary.push_str("; the jobs database does not answer");
    }
    summary
}

/// Whether rows wait for their vectors for longer than a moment.
fn has_backlog(job: &JobStatus) -> bool {
    match job.state {
        JobState::Backfilling => true,
        JobState::Streaming => {
            job.lag_seconds.is_some_and(|lag| lag > SMALL_LAG_SECONDS)
                || job.lag_bytes.is_some_and(|lag| lag > SMALL_LAG_BYTES)
        }
        _ => false,
    }
}
