//! What must be true when everything is well again and nobody writes.

mod echo;
mod questions;
mod refused;
mod rows;
mod take_over;

use std::fmt::Write as _;
use std::time::Duration;

use super::faults;
use super::stage::Stage;
use questions::Judge;

/// Streaming again after the server or the network is back.
const RECOVERY: Duration = Duration::from_secs(10);
/// Working off what a schedule has left to do: a few thousand short texts.
const PATIENCE: Duration = Duration::from_secs(40);

/// Asks everything in turn; violations go to the stage's record.
pub async fn judge(stage: &Stage) {
    let client = stage.client().await;
    stage.say("judging");
    let judged = Judge { stage, client }.verdict().await;
    if let Err(violation) = judged {
        stage.say(&violation);
        stage.record.violation(violation);
    }
}

impl Judge<'_> {
    async fn verdict(&self) -> Result<(), String> {
        let Self { stage, .. } = self;
        self.until(
            &self.streaming(),
            RECOVERY,
            "the jobs stream again after all is well",
        )
        .await?;
        // Some faults, and the search for users who wait for a daemon, find its sessions by this name.
        let sessions = "SELECT count(DISTINCT backend_type) = 2 FROM pg_stat_activity \
                        WHERE application_name LIKE 'lantern-cli%' AND datname = current_database()";
        self.until(sessions, RECOVERY, "the daemon's sessions show their name")
            .await?;

        let lost = match stage.schedule.loss {
            Some(loss) => Some(self.others_take_over(loss).await?),
            None => None,
        };
        if stage.schedule.is_noticed_late() {
            self.eventually_right().await?;
        }
        self.caught_up().await?;
        self.right().await?;
        if let Some(daemon) = lost {
            faults::find(stage, daemon);
        }

        self.only_refused_rows_are_aside().await?;
        if stage.schedule.shape.refuses {
            self.rows_aside_come_back().await?;
        }
        if stage.schedule.shape.fingerprint {
            for job in self.jobs().await? {
                self.succeeds("verify", &job.id).await?;
            }
        }

        self.nothing_is_taken_for_news().await?;

        stage.say("cancelling the jobs");
        stage.record.disturbed();
        self.execute("UPDATE jobs SET canceled_at = true").await?;
        let nothing_left = "SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database()) \
                            AND NOT EXISTS (SELECT FROM pg_publication)";
        self.until(
            nothing_left,
            RECOVERY,
            "nothing of the cancelled jobs is left",
        )
        .await
    }

    /// The question whether all slots are read from.
    fn streaming(&self) -> String {
        format!(
            "SELECT (SELECT count(*) = {} FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
             WHERE s.database = current_database() AND r.state IN ('streaming', 'catchup'))",
            self.stage.schedule.slots()
        )
    }

    /// Waits until the first run is done and all that has happened so far is confirmed.
    async fn caught_up(&self) -> Result<(), String> {
        let now = self.value(NOW).await?;
        let caught_up = format!(
            "SELECT COALESCE(bool_and(j.init_finished_at >= j.init_started_at AND j.init_failed_at IS NULL), false) \
               AND (SELECT count(*) = {} AND bool_and(confirmed_flush_lsn >= '{now}') FROM pg_replication_slots \
                    WHERE database = current_database() AND active) FROM jobs j",
            self.stage.schedule.slots()
        );
        let result = self
            .until(&caught_up, PATIENCE, "everything is confirmed")
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

/// The end of the WAL.
const NOW: &str = "SELECT pg_current_wal_insert_lsn()::text";
