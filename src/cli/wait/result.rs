//! What a wait has come to, for people, for programs, and as an exit status.

use std::process::ExitCode;
use std::time::Duration;

use humantime::format_duration;
use serde_json::{Value, json};

use super::pending::why_pending;
use crate::cli::status_figures::plural;
use crate::cli::{job_state, output, stderr};
use crate::jobs::failures::Failure;
use crate::jobs::{JobId, JobRow, JobStore};
use crate::pipeline::commands::wait::{Pending, Standing};
use crate::pipeline::slot::committed_end::CommittedEnd;
use crate::pipeline::slot::job_slots::JobSlot;
use crate::postgres::{DatabaseError, Session};

/// The exit status where rows of the job are in the failures table.
const QUARANTINED: u8 = 3;
/// The exit status where not everything is embedded in time.
pub const TIMED_OUT: u8 = 4;
/// The most quarantined rows that are printed.
const MAX_SHOWN: usize = 5;

/// How the wait for a job has ended.
pub struct WaitResult {
    job: JobId,
    /// Up to where; `None` for a job that had ended before.
    end: Option<CommittedEnd>,
    /// What the job embeds: one of them, and many.
    unit: (&'static str, &'static str),
    slot: Option<String>,
    state: State,
    /// The failures table, quoted.
    failures: String,
    /// What stands for the jobs table, where it is a view.
    view: Option<String>,
}

enum State {
    /// Everything is embedded but these rows; `None` if the role may not read which.
    Done(Option<Vec<Failure>>),
    /// The rest of a sentence that begins with the job.
    TimedOut(String),
    /// In one word, and as the rest of a sentence.
    Ended(&'static str, String),
}

impl WaitResult {
    /// Reads what a person should know of this standing. `end` and `target` are `None` for a job that had ended before.
    ///
    /// # Errors
    /// The server's.
    pub async fn read(
        store: &JobStore,
        row: &JobRow,
        standing: Standing,
        end: Option<CommittedEnd>,
        target: Option<&Session>,
    ) -> anyhow::Result<Self> {
        let job = &row.id;
        let result = |slot: Option<JobSlot>, state| WaitResult {
            job: job.clone(),
            end,
            unit: row.definition.unit(),
            slot: slot.map(|slot| slot.name),
            state,
            failures: store.table().failures().to_owned(),
            view: view(store),
        };
        Ok(match standing {
            Standing::Done(slot) => result(Some(slot), State::Done(quarantined(store, job).await?)),
            Standing::Ended(row) => {
                let why = job_state::description(store, &row).await?;
                let word = if row.canceled { "canceled" } else { "failed" };
                result(None, State::Ended(word, why.unwrap_or_default()))
            }
            Standing::Deleted => {
                let why = format!("is no longer in {}", store.table().qualified());
                result(None, State::Ended("deleted", why))
            }
            Standing::Pending(pending) => {
                let remarks = store.remarks_on(job).await?;
                let why = why_pending(store, &pending, &remarks, end, target).await?;
                let slot = match pending {
                    Pending::SlotIsLost(slot) | Pending::Behind(slot) => Some(slot),
                    Pending::Backfill(_) | Pending::NoSlot => None,
                };
                result(slot, State::TimedOut(why))
            }
        })
    }

    /// A server went away during the wait, and did not come back in time.
    pub fn of_outage(
        store: &JobStore,
        row: &JobRow,
        error: &DatabaseError,
        end: CommittedEnd,
    ) -> Self {
        WaitResult {
            job: row.id.clone(),
            end: Some(end),
            unit: row.definition.unit(),
            slot: None,
            state: State::TimedOut(format!("cannot be asked for: {error}")),
            failures: store.table().failures().to_owned(),
            view: view(store),
        }
    }

    /// The exit status, as the help of the command has it.
    pub fn exit_code(&self) -> ExitCode {
        match &self.state {
            State::Done(Some(rows)) if !rows.is_empty() => ExitCode::from(QUARANTINED),
            State::Done(_) => ExitCode::SUCCESS,
            State::TimedOut(_) => ExitCode::from(TIMED_OUT),
            State::Ended(..) => ExitCode::FAILURE,
        }
    }

    /// For a program.
    pub fn as_json(&self, took: Duration) -> Value {
        let (state, reason, rows) = match &self.state {
            State::Done(Some(rows)) if !rows.is_empty() => ("quarantined", None, Some(rows)),
            State::Done(rows) => ("embedded", None, rows.as_ref()),
            State::TimedOut(why) => ("timeout", Some(why), None),
            State::Ended(word, why) => (*word, Some(why), None),
        };
        let row =
            |row: &Failure| json!({"key": row.key, "error": row.error, "attempts": row.attempts});
        json!({
            "job": self.job.as_str(),
            "state": state,
            "reason": reason.map(|why| format!("job {} {why}", self.job)),
            "position": self.end.map(|end| end.position().to_string()),
            "slot": self.slot,
            "quarantined": rows.map(|rows| rows.iter().map(row).collect::<Vec<_>>()),
            "seconds": took.as_secs_f64(),
        })
    }

    /// For a person: the result, or on standard error why there is none.
    pub fn print(&self, timeout: Duration) -> anyhow::Result<()> {
        match &self.state {
            State::Done(rows) => Ok(output::lines(&self.report(rows.as_deref()))?),
            State::TimedOut(why) => {
                let timeout = format_duration(timeout);
                stderr::line(&format!("error: job {} {why} (after {timeout})", self.job));
                Ok(())
            }
            State::Ended(_, why) => {
                stderr::line(&format!("error: job {} {why}", self.job));
                Ok(())
            }
        }
    }

    fn report(&self, rows: Option<&[Failure]>) -> Vec<String> {
        let (job, failures) = (&self.job, &self.failures);
        let slot = self.slot.as_deref().unwrap_or_default();
        let embedded = format!(
            "job {job}: everything up to {} (replication slot {slot}) is embedded",
            self.end.map(CommittedEnd::position).unwrap_or_default()
        );
        let Some(rows) = rows else {
            return vec![match &self.view {
                None => format!("{embedded}, or in {failures}, which this role may not read"),
                Some(view) => {
                    format!("{embedded}, or in the failures table, which {view} does not show")
                }
            }];
        };
        if rows.is_empty() {
            return vec![embedded];
        }
        let count = plural(rows.len() as u64, self.unit.0, self.unit.1);
        let mut report = vec![format!("{embedded}, but for {count} in {failures}:")];
        let shown = rows.iter().take(MAX_SHOWN);
        report.extend(shown.map(|row| format!("  {}: {}", row.key, row.error)));
        if rows.len() > MAX_SHOWN {
            report.push("  …".to_owned());
        }
        report.push(format!(
            "Remove the cause, then run lantern-cli retry-failed --job {job}."
        ));
        report
    }
}

async fn quarantined(store: &JobStore, job: &JobId) -> anyhow::Result<Option<Vec<Failure>>> {
    // The count tells rows that are not there from rows that may not be read.
    Ok(match store.count_failures(job).await? {
        Some(_) => Some(store.failures(job).await?),
        None => None,
    })
}

/// The name of the view that stands for the jobs table, if one does.
fn view(store: &JobStore) -> Option<String> {
    let table = store.table();
    table.is_view().then(|| table.qualified().to_owned())
}
