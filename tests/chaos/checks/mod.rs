//! What must be true when all faults are over and the users have stopped.

mod checker;
mod failed_rows;
mod failover;
mod passages;
mod vectors;
mod write_backs;

use std::fmt::Write as _;
use std::time::Duration;

use super::documents::quiet_rows::Edit;
use super::documents::readiness::settle;
use super::faults;
use super::role;
use super::testbed::Testbed;
use checker::Checker;
pub use passages::same_vector;

/// Streaming again after the server or the network is back.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Finishing what a schedule has left to do: a few thousand short texts.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(40);

/// The end of the WAL.
const WAL_END: &str = "SELECT pg_current_wal_insert_lsn()::text";

/// Makes all checks in turn, up to the first violation, which goes to the testbed's record.
pub async fn check(testbed: &Testbed) {
    let client = testbed.client().await;
    testbed.log("checking");
    let checked = Checker { testbed, client }.check().await;
    let checked = checked.and_then(|()| no_task_panicked(testbed));
    if let Err(violation) = checked {
        testbed.log(&violation);
        testbed.record.violation(violation);
    }
}

/// A panic ends an attempt of a job, and the next one may hide it.
fn no_task_panicked(testbed: &Testbed) -> Result<(), String> {
    let log = std::fs::read_to_string(&testbed.config.log).map_err(|error| error.to_string())?;
    match log.lines().find(|line| line.contains("panicked at")) {
        Some(line) => Err(format!("a task of a daemon panicked: {line}")),
        None => Ok(()),
    }
}

impl Checker<'_> {
    async fn check(&self) -> Result<(), String> {
        self.jobs_recover().await?;
        let lost = match self.testbed.schedule.loss {
            Some(loss) => Some(self.others_take_over(loss).await?),
            None => None,
        };
        self.documents_change_at_rest().await?;
        if self.testbed.schedule.is_noticed_late() {
            self.vectors_become_right().await?;
        }
        self.caught_up().await?;
        self.vectors_are_right().await?;
        if let Some(daemon) = lost {
            faults::bring_back(self.testbed, daemon);
        }
        self.only_rejected_rows_are_noted().await?;
        if self.testbed.schedule.shape.rejects {
            self.failed_rows_are_retried().await?;
        }
        for job in self.jobs().await? {
            if self.testbed.schedule.shape.fingerprint || job.passages.is_some() {
                self.succeeds("verify", &job.id).await?;
            }
        }
        self.own_write_backs_are_ignored().await?;
        self.canceled_jobs_leave_nothing().await
    }

    async fn jobs_recover(&self) -> Result<(), String> {
        let what = "the jobs stream again after all faults are over";
        self.until(&self.tried_again(), RECOVERY_TIMEOUT, what)
            .await?;
        // Some faults, and the monitor of waiting users, find the daemon's sessions by this name.
        let sessions = "SELECT count(DISTINCT backend_type) = 2 FROM pg_stat_activity \
                        WHERE application_name LIKE 'lantern-cli%' AND datname = current_database()";
        let what = "the daemon's sessions show their name";
        self.until(sessions, RECOVERY_TIMEOUT, what).await
    }

    /// Documents change once more, when nothing else is on its way: earlier, the change of a key or a DELETE may come to a
    /// daemon that has yet to look at the row for another reason.
    async fn documents_change_at_rest(&self) -> Result<(), String> {
        let schedule = &self.testbed.schedule;
        if schedule.documents.is_none() {
            return Ok(());
        }
        let quiet = schedule.quiet_rows_at_rest();
        settle(self.testbed, quiet).await;
        let edited = quiet.edit(&self.client, &schedule.shape, Edit::Each).await;
        edited.map_err(|error| format!("documents cannot be changed: {error:?}"))
    }

    async fn canceled_jobs_leave_nothing(&self) -> Result<(), String> {
        self.testbed.log("canceling the jobs");
        self.testbed.record.disturbed();
        self.execute("UPDATE jobs SET canceled_at = true").await?;
        let nothing_left = "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database()) \
                            AND NOT EXISTS (SELECT FROM pg_publication)";
        let what = "nothing of the canceled jobs is left";
        self.until(nothing_left, RECOVERY_TIMEOUT, what).await
    }

    /// A query whether all slots are read from.
    fn streaming(&self) -> String {
        format!(
            "SELECT (SELECT count(*) = {} FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
             WHERE s.database = current_database() AND r.state IN ('streaming', 'catchup'))",
            self.testbed.schedule.slots()
        )
    }

    /// As [`streaming`](Self::streaming). Meanwhile an operator has jobs tried again that failed because of their role.
    fn tried_again(&self) -> String {
        format!(
            "WITH again AS (UPDATE jobs SET init_failed_at = NULL WHERE {}) {}",
            role::FAILED_BY_ROLE,
            self.streaming()
        )
    }

    /// Waits until the initial backfill is done and all that has happened so far is confirmed.
    async fn caught_up(&self) -> Result<(), String> {
        let now = self.value(WAL_END).await?;
        let caught_up = format!(
            "SELECT COALESCE(bool_and(COALESCE(j.init_finished_at >= j.init_started_at, false) AND j.init_failed_at IS NULL), false) \
               AND (SELECT count(*) = {} AND bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots \
                    WHERE database = current_database() AND active) FROM jobs j",
            self.testbed.schedule.slots()
        );
        let result = self
            .until(&caught_up, CATCH_UP_TIMEOUT, "everything is confirmed")
            .await;
        let Err(mut violation) = result else {
            return Ok(());
        };
        let state = "SELECT COALESCE((SELECT string_agg(to_jsonb(j)::text, '; ') FROM (SELECT id, init_started_at, init_finished_at, \
                       init_failed_at, init_failure_reason, canceled_at FROM jobs) j), 'no job') \
                     || ' ' || COALESCE((SELECT string_agg(to_jsonb(s)::text, '; ') FROM (SELECT slot_name, active, wal_status, \
                       restart_lsn, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()) s), 'no slot')";
        let _ = write!(violation, " ({now}): {}", self.value(state).await?);
        Err(violation)
    }
}
