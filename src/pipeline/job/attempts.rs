//! The transitions of a job: attempt after attempt, until it stops, is canceled or fails.

use std::time::Duration;

use tokio::time::Instant;

use super::state::{Job, JobEnd};
use crate::backoff::Backoff;
use crate::jobs::{Definition, InitProgress};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::{ddl, target_database};
use crate::pipeline::slot::retention;
use crate::postgres::quote::identifier;
use crate::status::record::Phase;

const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// Short enough to stream again within ten seconds of a server's return.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The longest pause of a job that waits for a person. Servers lock accounts after many refused logins.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// An attempt that lasted this long was a success: the next pause is short again.
const STEADY_AFTER: Duration = Duration::from_secs(20);

impl Job {
    /// Runs the job to its end, through as many attempts as it takes.
    ///
    /// Cancellation: a dropped future ends every task of the job. What was not confirmed comes again.
    pub async fn run(self) -> JobEnd {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => JobEnd::Canceled,
            end = self.attempts() => end,
        }
    }

    async fn attempts(mut self) -> JobEnd {
        let stop = self.stop.clone();
        self.has_run = self.row.progress != InitProgress::New;
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut waiting = Backoff::new(MIN_BACKOFF, MAX_WAIT);
        // Slots in a row that were dropped before the job had caught up.
        let mut dropped_slots = 0;
        let mut unsendable = Unsendable::default();
        // What the last attempt ended with.
        let mut last = Ending::default();
        loop {
            let began = Instant::now();
            self.counters.set_phase(Phase::Starting);
            let error = match self.attempt().await {
                Ok(()) => return JobEnd::Stopped,
                Err(_) if stop.is_cancelled() => return JobEnd::Stopped,
                Err(error) => error,
            };
            if let JobError::Swapped(what) = &error {
                tracing::info!("{what}");
                continue;
            }
            self.counters.set_phase(Phase::Interrupted);
            if let JobError::Replaced(what) = &error {
                tracing::info!("{what}");
                // The supervisor ends the job at its next look at the row.
                tokio::select! {
                    () = stop.cancelled() => return JobEnd::Stopped,
                    () = tokio::time::sleep(MAX_BACKOFF) => continue,
                }
            }
            let why_waiting = self.why_waiting(&error);
            if matches!(&error, JobError::Embedding(error) if error.is_refusal()) {
                // The next attempt reads the key again.
                self.model = None;
            }
            if matches!(error, JobError::TableGone(_)) {
                self.history.gone_at = Some(Instant::now());
            }
            if matches!(error, JobError::PassagesUnverified(_)) {
                // Written before anything is repaired, so that a crash in between does not forget it.
                self.start_again().await;
            }
            if began.elapsed() > STEADY_AFTER {
                backoff.reset();
                waiting.reset();
                last = Ending::default();
            }
            let ending = Ending::of(&error);
            // A definition may have changed between two statements of an attempt. The next one reads it again.
            let may_pass = ending.outdated && !last.outdated || self.history.is_settling();
            if !error.is_transient() && why_waiting.is_none() && !may_pass {
                return JobEnd::Failed(error.to_string());
            }
            if matches!(error, JobError::Unsendable(_)) {
                unsendable.count();
                if unsendable.is_persistent() && self.history.sends_whole_rows {
                    return JobEnd::Failed(format!("{error}; {}", self.send_less()));
                }
            }
            if let Some(why) = why_waiting {
                let pause = waiting.next_pause();
                self.interruption.wait(&why, pause);
                tokio::select! {
                    () = stop.cancelled() => return JobEnd::Stopped,
                    () = tokio::time::sleep(pause) => continue,
                }
            }
            waiting.reset();
            let mut pause = backoff.next_pause();
            if self.row.progress == InitProgress::Finished {
                dropped_slots = 0;
            } else if error.requires_new_slot() {
                dropped_slots += 1;
                pause = retention::pause(dropped_slots);
            }
            if error.requires_new_slot() {
                pause = pause.max(unsendable.pause());
            }
            match ending.waits_for_table {
                true => self.interruption.wait(&error.to_string(), pause),
                false => self.interruption.retry(&error, pause),
            }
            last = ending;
            tokio::select! {
                () = stop.cancelled() => return JobEnd::Stopped,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Why the job waits, and what to do, after an error that passes only when a person has done something elsewhere;
    /// `None` for other errors. A login that is refused is such an outage for a job that has run before. One that has
    /// never run fails: most likely its row is wrong.
    fn why_waiting(&self, error: &JobError) -> Option<String> {
        if matches!(error, JobError::StandsBack(_)) {
            return Some(error.to_string());
        }
        if !error.is_access_refusal() || !self.has_run {
            return None;
        }
        let whose = match error {
            JobError::Embedding(_) => "the model's server",
            _ => "the target server",
        };
        Some(format!(
            "{whose} refuses the daemon, which is tried again until it accepts it; meanwhile only the \
             server itself (max_slot_wal_keep_size) limits the WAL that the slot {} retains: {error}",
            self.subscription.slot()
        ))
    }

    /// One attempt. Where it ends because the slot has become unusable, the slot is dropped: its absence tells the next
    /// attempt, on another daemon too, that changes were missed. So a crash in between changes nothing. Likewise where nothing
    /// of the job may stay.
    async fn attempt(&mut self) -> Result<(), JobError> {
        let result = self.prepare_and_stream().await;
        if result.is_err() && self.has_swapped().await {
            return Err(JobError::Swapped(
                "the job goes on with the column under its new name".into(),
            ));
        }
        if let Err(error) = &result
            && (error.requires_new_slot() || error.withdraws())
        {
            let definition = &self.row.definition;
            let database = target_database::from_definition(definition, &self.access)?;
            match error.withdraws() {
                true => self.subscription.withdraw(&database).await?,
                false => self.subscription.drop_slot(&database).await?,
            }
        }
        result
    }

    /// What to do about rows that cannot be sent as a whole.
    fn send_less(&self) -> String {
        let Definition { schema, table, .. } = &self.row.definition;
        format!(
            "whole rows are sent under REPLICA IDENTITY FULL, and before PostgreSQL 15, and the job's own write-back sends the \
             row again. Make it smaller or correct its texts; or from PostgreSQL 15 on run: \
             ALTER TABLE {}.{} REPLICA IDENTITY DEFAULT;",
            identifier(schema),
            identifier(table.as_deref().unwrap_or_default())
        )
    }

    /// `Ok` when the daemon stops.
    async fn prepare_and_stream(&mut self) -> Result<(), JobError> {
        let (stop, reporter) = (self.stop.clone(), self.reporter.clone());
        let prepared = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            prepared = ddl::telling(reporter, Box::pin(self.prepare())) => prepared?,
        };
        Box::pin(self.stream(prepared)).await
    }
}

/// How often a slot was given up because of what a change holds.
#[derive(Debug, Clone, Copy, Default)]
struct Unsendable {
    count: u32,
    last: Option<Instant>,
}

impl Unsendable {
    /// This often within [`PERIOD`](Self::PERIOD) it is no accident.
    const PERSISTENT: u32 = 3;
    const PERIOD: Duration = Duration::from_secs(3600);

    fn count(&mut self) {
        if self.last.is_none_or(|last| last.elapsed() > Self::PERIOD) {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(Instant::now());
    }

    fn is_persistent(&self) -> bool {
        self.count > Self::PERSISTENT
    }

    /// A pause before the next slot. The first ones are short: of the jobs that share a slot, one may be at fault, and it
    /// fails soon.
    fn pause(&self) -> Duration {
        match self.count.checked_sub(2 * Self::PERSISTENT) {
            Some(more) if more > 0 => retention::pause(more),
            _ => Duration::ZERO,
        }
    }
}

/// What is remembered of how an attempt ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ending {
    /// By a statement that did not fit the definition of its objects.
    outdated: bool,
    /// Because there is no table of the job's name.
    waits_for_table: bool,
}

impl Ending {
    fn of(error: &JobError) -> Self {
        Ending {
            outdated: error.may_be_outdated(),
            waits_for_table: matches!(error, JobError::TableGone(_)),
        }
    }
}
