//! Whether the new column has a vector for every text.
//!
//! On a table that is written to, some rows have none at any moment: those that the stream brings just now. So rows without
//! a vector are looked at once more when the slot has confirmed everything that was committed at the first look.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::slot::committed_end::CommittedEnd;
use crate::pipeline::slot::job_slots::{JobSlot, find_job_slots};
use crate::pipeline::table::key_sql::parameters;
use crate::pipeline::table::row::Key;
use crate::pipeline::table::target::TargetTable;
use crate::plural::form;
use crate::postgres::quote::identifier;
use crate::postgres::{DatabaseError, Session};
use crate::replication::SlotName;

/// The most rows without a vector that are looked at. More than the failures table may have of a job.
const MAX_ROWS: i64 = 2000;
/// How long the slot may take to confirm what was committed, before the look is given up and repeated later.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The new column, and who fills it.
pub struct Coverage<'a> {
    /// The table, whose destination is the new column.
    pub target: &'a TargetTable,
    /// The job's own slot, whether it is used or shared.
    pub slot: &'a SlotName,
    /// Knows the failures table.
    pub reporter: &'a Reporter,
    /// Rows of the failures table do not count.
    pub accepts_failures: bool,
}

impl Coverage<'_> {
    /// Returns once every text has a vector.
    ///
    /// # Errors
    /// [`JobError::Transient`] while vectors are on their way, [`JobError::StandsBack`] where a person has to act; and the
    /// server's.
    ///
    /// Cancellation safe: it only reads.
    pub async fn check(&self, session: &Session) -> Result<(), JobError> {
        let lacking = self.lacking(session).await?;
        let quarantined = self.quarantined().await;
        let (failed, open): (Vec<Key>, Vec<Key>) = lacking
            .into_iter()
            .partition(|key| quarantined.contains(key));
        let open = match open.is_empty() {
            true => open,
            false => {
                self.caught_up(session).await?;
                self.still_lacking(session, &open).await?
            }
        };
        // Rows may have come into the failures table meanwhile.
        let quarantined = self.quarantined().await;
        let (more, open): (Vec<Key>, Vec<Key>) =
            open.into_iter().partition(|key| quarantined.contains(key));
        let failed = failed.len() + more.len();
        if !open.is_empty() {
            return Err(JobError::Transient(format!(
                "the vectors of {} {}; where they do not come, run: lantern-cli resync --job {}",
                open.len(),
                form(open.len(), "row", "rows"),
                self.reporter.id()
            )));
        }
        if failed > 0 && !self.accepts_failures {
            let id = self.reporter.id();
            return Err(JobError::StandsBack(format!(
                "{failed} {} that could not be embedded with the new model: see the failures table, remove the cause, and \
                 run lantern-cli retry-failed --job {id}; or let the job take over without: lantern-cli change-model \
                 --job {id} --despite-failures",
                form(failed, "row", "rows"),
            )));
        }
        Ok(())
    }

    /// Returns once the slot has confirmed what is committed now.
    ///
    /// # Errors
    /// [`JobError::Transient`] where it does not within some seconds, and the server's.
    pub async fn caught_up(&self, session: &Session) -> Result<(), JobError> {
        let mut end = CommittedEnd::read(session).await?;
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        loop {
            let slots = find_job_slots(session, self.slot).await?;
            let is_there = |slot: &JobSlot| slot.has_confirmed(end.position());
            if !slots.is_empty() && slots.iter().all(is_there) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(JobError::Transient(
                    "the slot of the job to catch up with the changes of its table".into(),
                ));
            }
            end.leave_out_unflushed(session).await?;
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn quarantined(&self) -> HashSet<Key> {
        let failures = self.reporter.failures().await;
        let keys = failures.iter();
        keys.filter_map(|failure| self.target.key_from_json(&failure.key))
            .collect()
    }

    /// A condition on the row `t`.
    fn lacks(&self) -> String {
        format!(
            "{} IS NOT NULL AND t.{} IS NULL",
            self.target.source.plain_sql("t"),
            identifier(&self.target.destination.name)
        )
    }

    async fn lacking(&self, session: &Session) -> Result<Vec<Key>, DatabaseError> {
        let statement = format!(
            "SELECT {} FROM {} t WHERE {} LIMIT {MAX_ROWS}",
            self.target.key_texts("t"),
            self.target.from_clause(),
            self.lacks()
        );
        let rows = session.query(&statement, &[]).await;
        self.read_keys(rows)
    }

    async fn still_lacking(
        &self,
        session: &Session,
        keys: &[Key],
    ) -> Result<Vec<Key>, DatabaseError> {
        let statement = format!(
            "SELECT {} FROM (SELECT {} FROM {}) i JOIN {} t ON {} WHERE {}",
            self.target.key_texts("t"),
            self.target.key_casts("u"),
            self.target.unnest_keys(&[]),
            self.target.from_clause(),
            self.target.key_join("t", "i"),
            self.lacks()
        );
        let arrays = self.target.key_arrays(keys);
        let rows = session.query(&statement, &parameters(&arrays)).await;
        self.read_keys(rows)
    }

    fn read_keys(
        &self,
        rows: Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>,
    ) -> Result<Vec<Key>, DatabaseError> {
        rows.and_then(|rows| rows.iter().map(|row| self.target.read_key(row)).collect())
            .map_err(DatabaseError::during("looking for rows without a vector"))
    }
}
