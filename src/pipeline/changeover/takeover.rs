//! The end of a changeover: waits until the new column is complete, and swaps.
//!
//! ```text
//! ┌▶ anything in the way? ─▶ index there? ─▶ every text has a vector? ─▶ caught up? ─▶ swap ─▶ over
//! └────────────── pause: the row says what is waited for (waits_for) ◀── no, or an error
//! ```

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::jobs::reporter::Reporter;
use crate::pipeline::changeover::complete::Coverage;
use crate::pipeline::changeover::place::Changeover;
use crate::pipeline::changeover::swap::Swap;
use crate::pipeline::changeover::{obstacle, stage};
use crate::pipeline::error::JobError;
use crate::pipeline::index::look;
use crate::pipeline::index::look::is_owner;
use crate::pipeline::index::wanted::WantedIndex;
use crate::pipeline::setup::definition::TargetNames;
use crate::pipeline::slot::names::own_slot;
use crate::pipeline::slot::session_locks::Identity;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, Session};
use crate::reminder::Reminder;
use crate::replication::SlotName;

const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// A person who has removed what was in the way sees the swap soon.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A job that fills a column, and what it takes to swap that in.
pub struct Takeover {
    /// The target database as each of the job's roles.
    pub roles: Vec<ConnectionString>,
    /// The names of the table.
    pub names: TargetNames,
    /// The table, whose destination is the new column.
    pub target: Arc<TargetTable>,
    /// The columns, and whose they were.
    pub changeover: Changeover,
    /// The index that the job asks for.
    pub wanted: Option<WantedIndex>,
    /// The job's own slot, whether it is used or shared.
    pub slot: SlotName,
    /// The job that is replaced.
    pub predecessor: Identity,
    /// Rows of the failures table do not hold it up.
    pub accepts_failures: bool,
    /// Writes into the job's row.
    pub reporter: Reporter,
}

impl Takeover {
    /// Returns once the columns are swapped. Until then it is tried again, whatever the error.
    ///
    /// Cancellation: the columns are swapped, or not. The catalog tells.
    pub async fn run(self) {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let mut reminder = Reminder::default();
        while let Err(error) = self.attempt().await {
            let (message, needs_a_person) = match error {
                JobError::Transient(what) => (what, false),
                JobError::StandsBack(what) => (what, true),
                error => (format!("another try, after an error: {error}"), true),
            };
            if reminder.is_due(&message) {
                let said =
                    format!("the new column is not swapped in yet; the job waits for {message}");
                match needs_a_person {
                    true => tracing::warn!("{said}"),
                    false => tracing::info!("{said}"),
                }
            }
            self.reporter.waits_for(Some(message));
            backoff.wait().await;
        }
        tracing::info!(
            "the column {} now has the vectors of the new model; those of before are in {}",
            self.names
                .qualified_column(&self.changeover.columns.destination.name),
            self.names
                .qualified_column(&self.changeover.columns.destination.before)
        );
    }

    async fn attempt(&self) -> Result<(), JobError> {
        let (session, others) = self.open().await?;
        let (table, columns) = (self.target.oid, &self.changeover.columns);
        if let Some(wanted) = &self.wanted
            && look::find(&session, &self.target, wanted).await?.is_none()
        {
            return Err(JobError::Transient(
                "the index of create_index (see index_state)".into(),
            ));
        }
        let coverage = Coverage {
            target: &self.target,
            slot: &self.slot,
            reporter: &self.reporter,
            accepts_failures: self.accepts_failures,
        };
        let staging = &columns.destination.staging;
        let number = stage::number(&session, table, staging).await?;
        coverage.check(&session).await?;
        coverage.caught_up(&session).await?;
        self.is_still_wanted().await?;
        let swap = Swap {
            names: &self.names,
            table,
            columns,
            number,
            predecessor: self.predecessor,
            fence: self.fence(),
            others: &others,
        };
        swap.run(&session).await
    }

    /// A person may have given the change up a moment ago.
    async fn is_still_wanted(&self) -> Result<(), JobError> {
        match self.reporter.job(self.reporter.id()).await {
            Some(row) if !row.canceled => Ok(()),
            _ => Err(JobError::Transient(
                "its end, since it is canceled or deleted".into(),
            )),
        }
    }

    /// A session of the owner of the table, and those of the other roles. Nothing is in the way on the table.
    async fn open(&self) -> Result<(Session, Vec<Session>), JobError> {
        let mut sessions = Vec::with_capacity(self.roles.len());
        let mut owner = None;
        for role in &self.roles {
            let session = Session::open(role).await?;
            if owner.is_none() && is_owner(&session, self.target.oid).await? {
                owner = Some(session);
            } else {
                sessions.push(session);
            }
        }
        let Some(session) = owner.as_ref().or(sessions.first()) else {
            return Err(JobError::Transient("a role".into()));
        };
        let (table, columns) = (self.target.oid, &self.changeover.columns);
        // First what holds up the owner, too.
        let reason = match obstacle::find(session, &self.names, table, columns).await? {
            None if owner.is_none() => {
                Some(obstacle::for_the_owner(session, &self.names, table, columns).await?)
            }
            reason => reason,
        };
        match (reason, owner) {
            (None, Some(owner)) => Ok((owner, sessions)),
            (reason, _) => Err(obstacle::waits_for_a_person(&reason.unwrap_or_default())),
        }
    }

    fn fence(&self) -> Option<SlotName> {
        let predecessor = self.changeover.predecessor.as_ref()?;
        Some(own_slot(self.predecessor.jobs_table, predecessor))
    }
}
