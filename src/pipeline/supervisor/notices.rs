//! What is said of rows that are skipped, of jobs that wait for their turn, and of locks that strangers hold.

use std::collections::BTreeSet;

use crate::jobs::definition::JobId;
use crate::jobs::presence::{FleetView, Held, Stranger};
use crate::pipeline::supervisor::state::Supervisor;
use crate::plural::form;
use crate::postgres::DatabaseError;

/// The most rows of waiting jobs that are written at a look.
const MAX_TOLD: usize = 64;

impl Supervisor {
    /// Says that rows are skipped because nothing tells them apart, and how to prevent it.
    pub(super) fn tell_of_unusable_ids(&mut self, nameless: usize) {
        let ambiguous = self.watcher.ambiguous();
        if nameless == 0 && ambiguous.is_empty() {
            self.unusable_ids.end();
            return;
        }
        let table = self.store.table().qualified();
        let shown: Vec<String> = ambiguous.iter().take(5).map(ToString::to_string).collect();
        let message = format!(
            "rows of {table} are skipped: {nameless} have no id, or one of more than 1 kB, and {} ids are of several \
             rows each ({}), whose jobs stay as they were. Correct them, and run: ALTER TABLE {table} ADD PRIMARY KEY (id);",
            ambiguous.len(),
            shown.join(", "),
        );
        if self.unusable_ids.is_due(&message) {
            tracing::warn!("{message}");
        }
    }

    /// Says which sessions hold locks of ours without being a daemon's.
    pub(super) fn warn_of_strangers(&mut self, view: &FleetView) {
        let now: BTreeSet<Stranger> = view.strangers.iter().cloned().collect();
        for stranger in now.difference(&self.claims.strangers) {
            let Stranger { pid, role, held } = stranger;
            let session = format!(
                "a session of the role {role} (process {pid} of the jobs database's server)"
            );
            let remedy = format!(
                "and is of no daemon, since the role may not update the jobs table; end it with SELECT \
                 pg_terminate_backend({pid}); and REVOKE CONNECT on the database from roles that have no business there"
            );
            match held {
                Held::Job(id) => tracing::warn!(
                    job = %id,
                    "the job cannot run: {session} holds its advisory lock, {remedy}"
                ),
                Held::SharedSlot(slot) => tracing::warn!(
                    "the jobs of the slot {slot} cannot run: {session} holds its advisory lock, {remedy}"
                ),
                Held::OrphanSearch => tracing::warn!(
                    "slots that belong to no job are not searched for: {session} holds the advisory lock of that search, \
                     {remedy}"
                ),
                Held::Presence => tracing::warn!(
                    "{session} holds the advisory lock of a daemon, and is ignored, since the role may not update the jobs \
                     table"
                ),
            }
        }
        self.claims.strangers = now;
    }

    /// Says in the log and in their rows that jobs wait because this daemon runs as many as it may.
    pub(super) async fn tell_of_waiting(
        &mut self,
        waiting: BTreeSet<JobId>,
    ) -> Result<(), DatabaseError> {
        let limit = self.options.max_jobs;
        let told = std::mem::take(&mut self.claims.over_limit);
        let wait_no_more: Vec<&JobId> = told.difference(&waiting).collect();
        for id in wait_no_more {
            // A job that starts clears it itself, in any daemon.
            if self.watcher.row(id).is_some() && !self.watcher.is_wanted(id) {
                self.store.waits_for(id, None).await?;
            }
        }
        let new: Vec<JobId> = waiting.difference(&told).take(MAX_TOLD).cloned().collect();
        for id in &new {
            let what = format!("the daemon runs as many jobs as it may (--max-jobs {limit})");
            self.store.waits_for(id, Some(&what)).await?;
        }
        if !new.is_empty() {
            let shown: Vec<&str> = waiting.iter().take(5).map(JobId::as_str).collect();
            tracing::warn!(
                "{} {} until others end, since this daemon runs {limit} at most (--max-jobs): {}{}",
                waiting.len(),
                form(waiting.len(), "job waits", "jobs wait"),
                shown.join(", "),
                if waiting.len() > shown.len() {
                    ", …"
                } else {
                    ""
                }
            );
        }
        let kept = told.into_iter().filter(|id| waiting.contains(id));
        self.claims.over_limit = kept.chain(new).collect();
        Ok(())
    }
}
