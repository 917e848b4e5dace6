//! Runs the jobs of the jobs table: starts, replaces and cancels them, and records what they report. Several daemons
//! may share a table; each job runs in one of them.
//!
//! ```text
//!              poll every 400 ms                       tasks
//! jobs table ───────────────────▶ ┌────────────┐ ──▶ jobs
//!            ◀─────────────────── │ Supervisor │ ──▶ teardowns
//!              reports, locks     └────────────┘ ──▶ search for orphaned slots
//!                                    ▲   reports, outcomes   │
//!                                    └───────────────────────┘
//! ```
//!
//! One task, the loop in this file, owns the session to the jobs database, and with it all locks of this daemon. It
//! waits for the clock, for messages of jobs and for outcomes of tasks, and what it does about them awaits only answers
//! of that database: a daemon that does not use its session for 6 s counts as dead (`fleet`). Everything that may take
//! longer is a task of its own.
//!
//! | file | holds |
//! | --- | --- |
//! | `options` | what a daemon is started with |
//! | `session` | the session to the jobs database |
//! | `fleet` | the share of each daemon; which daemons count as dead |
//! | `teardown`, `orphans` | removal of slots and publications |
//! | `tasks` | the tasks and their outcomes, panics included |
//! | `state` | what the supervisor remembers |
//! | `claims` | which jobs this daemon starts and hands over |
//! | `cleanup` | what follows when a job ends |
//! | `catch_up` | the end of a daemon with `--until-caught-up` |
//! | `connection` | what holds while the jobs database is away |
//! | `heartbeat` | a line of the log each hour |
//! | `pulse` | what a service manager hears of the loop |
//! | `observation`, `observed` | what watchers see of the jobs |
//! | `notices` | what is said of rows and jobs that are not run, and of locks of strangers |
//! | `shutdown` | the end of the daemon |

pub mod catch_up;
mod claims;
mod cleanup;
mod connection;
mod fleet;
mod heartbeat;
mod notices;
mod observation;
mod observed;
pub mod options;
mod orphans;
pub mod pulse;
mod session;
mod shutdown;
pub mod state;
mod tasks;
mod teardown;

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::failpoint;
use crate::jobs::JobRow;
use crate::jobs::watcher::Change;
use crate::pipeline::setup::exclusive_use::{self, Leave};
use crate::pipeline::slot::names;
use crate::pipeline::slot::names::MemberId;
use crate::postgres::DatabaseError;
use catch_up::RunEnd;
use connection::Outage;
use pulse::Pulse;
use state::{AfterEnd, Supervisor};

/// How often the jobs table is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(400);
/// How often it is asked whether another session needs the jobs database for itself.
const LEAVE_INTERVAL: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Runs until the daemon is told to stop, or has caught up where that is its end. Then each job finishes what is under
    /// way.
    pub async fn run(mut self) -> RunEnd {
        tracing::info!(
            "watching {} in {}",
            self.store.table().qualified(),
            self.options.database
        );
        let mut clock = interval(POLL_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.stop.clone();
        let mut outage = Outage::new();
        let mut pulse = Pulse::new(self.listener.take(), self.observation.board.clone());
        loop {
            let lost = session::lost(self.options.clone(), self.session.clone());
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                step = pulse.during(self.step(&mut clock)) => step,
                error = lost => Err(error),
            };
            failpoint::reach("supervisor-step");
            match step {
                Ok(()) if outage.table_is_away => {
                    self.observe_outage(None);
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = pulse.during(self.return_to_table(&mut outage)) => {}
                    }
                }
                Ok(()) => {
                    outage.end();
                    self.last_answer = Instant::now();
                }
                Err(error) => {
                    self.observe_outage(Some(error.to_string()));
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = pulse.during(self.recover(error, &mut outage)) => {}
                    }
                }
            }
        }
        pulse.stopping();
        let end = self.run_end();
        self.shut_down().await;
        end
    }

    /// Waits for the next event and handles it. The future is dropped in the middle only if the daemon stops or the
    /// session is lost; so what a step takes out of a queue, it first puts into the state.
    async fn step(&mut self, clock: &mut Interval) -> Result<(), DatabaseError> {
        tokio::select! {
            biased;
            Some(message) = self.messages.recv() => {
                self.accept(message);
                self.write_reports().await
            }
            Some(outcome) = self.tasks.next() => self.handle(outcome).await,
            _ = clock.tick() => self.poll().await,
        }
    }

    /// Reads the jobs table and acts on what has changed.
    async fn poll(&mut self) -> Result<(), DatabaseError> {
        let embedded = self.engine.embedded_texts();
        self.heartbeat.log(self.running.len(), embedded);
        self.write_reports().await?;
        self.leave_if_needed().await?;
        let were_read = self.store.refresh(&mut self.known).await?;
        let rows = self.known.rows.clone();
        if were_read {
            self.take_in(&rows);
        }
        self.tell_of_unusable_ids(self.known.nameless);
        while let Some(change) = self.changes.pop_front() {
            self.apply(change);
        }
        self.tell_earlier_failures();
        self.recall_teardowns();
        self.balance().await?;
        self.observe(&rows).await?;
        self.search_orphans(&rows).await?;
        self.stop_if_caught_up().await;
        Ok(())
    }

    /// The rows were read: notes which jobs there are, and what has changed.
    fn take_in(&mut self, rows: &[JobRow]) {
        if let Some(readers) = &self.readers {
            let identity = self.store.table().identity();
            let member = |row| MemberId::from_slot(&names::own_slot(identity, row));
            readers.set_known(rows.iter().map(member).collect());
        }
        // Queued, so that none is lost if the session is lost in the middle.
        self.changes.extend(self.watcher.observe(rows));
    }

    /// Closes the session where another one needs the jobs database for itself. The next one waits until that one is
    /// done.
    ///
    /// # Errors
    /// Why it was closed, or the server's.
    async fn leave_if_needed(&mut self) -> Result<(), DatabaseError> {
        if self.asked_to_leave.elapsed() < LEAVE_INTERVAL {
            return Ok(());
        }
        self.asked_to_leave = Instant::now();
        let session = self.store.session();
        // A database that is closed for a while still has the rows of its jobs written.
        if exclusive_use::find(session).await? != Some(Leave::Wanted) {
            return Ok(());
        }
        session.close();
        Err(DatabaseError::Left {
            database: self.options.database.to_string(),
            reason: Leave::Wanted.reason(),
        })
    }

    /// Names the jobs that had failed before this daemon started: they stay so until a person acts.
    fn tell_earlier_failures(&mut self) {
        if std::mem::replace(&mut self.earlier_failures_told, true) {
            return;
        }
        for row in self.watcher.failed() {
            let reason = row
                .failure_reason
                .as_deref()
                .unwrap_or("no reason is recorded");
            tracing::warn!(
                job = %row.id,
                "the job has failed earlier and does not run: {}",
                self.with_retry(&row.id, reason)
            );
        }
    }

    /// Acts on a change of the table, or queues what it asks for.
    fn apply(&mut self, change: Change) {
        match change {
            Change::Restart(id) => {
                tracing::info!(job = %id, "the definition has changed; starting again");
                if let Some(running) = self.running.get_mut(&id) {
                    running.end(AfterEnd::ReleaseLock);
                }
            }
            Change::Replace(old) => {
                tracing::info!(job = %old.id, "the job has become another one; starting over");
                self.end(*old);
            }
            Change::Cancel(row) => self.end(*row),
            // A job that failed here is already being torn down, and one that runs here has not failed.
            Change::Failed(row) => {
                if !self.running.contains_key(&row.id) {
                    self.end(*row);
                }
            }
        }
    }
}
