//! `wait`: whether everything that was committed before a moment is embedded or quarantined, and why not yet.
//!
//! ```text
//! rows that changed since the slot exists    the slot has confirmed the position
//! rows that existed before                   the jobs table says that the initial backfill is finished
//! ```
//!
//! The slot is looked at first: before a daemon replaces a slot, it writes to the jobs table that every row has to be
//! scanned.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::jobs::{InitProgress, JobId, JobRow, JobStore};
use crate::pipeline::slot::committed_end::CommittedEnd;
use crate::pipeline::slot::job_slots::{JobSlot, find_job_slots};
use crate::pipeline::slot::names::own_slot;
use crate::postgres::{DatabaseError, Session};

const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// How far a job is.
#[derive(Clone, PartialEq, Eq)]
pub enum Standing {
    /// Everything up to the position is embedded or quarantined.
    Done(JobSlot),
    /// The job does not run until a person acts: it has failed or is canceled.
    Ended(Box<JobRow>),
    /// The job is no longer in the jobs table.
    Deleted,
    /// Not yet.
    Pending(Pending),
}

/// Why a job is not done yet.
#[derive(Clone, PartialEq, Eq)]
pub enum Pending {
    /// It scans its table, or has not started to.
    Backfill(Box<JobRow>),
    /// It has no slot, although it has started.
    NoSlot,
    /// The server has removed WAL that its slot needs.
    SlotIsLost(JobSlot),
    /// Its slot has not confirmed the position.
    Behind(JobSlot),
}

/// A job in the jobs table, and its target database.
#[derive(Clone, Copy)]
pub struct WaitingFor<'a> {
    /// The jobs table.
    pub store: &'a JobStore,
    /// The job.
    pub job: &'a JobId,
    /// Its target database.
    pub target: &'a Session,
}

impl WaitingFor<'_> {
    /// Looks until the job is done or has ended, or until the deadline.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// The servers'.
    pub async fn wait(
        self,
        end: &mut CommittedEnd,
        deadline: Instant,
    ) -> Result<Standing, DatabaseError> {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        loop {
            let standing = self.look(end).await?;
            let now = Instant::now();
            if !matches!(standing, Standing::Pending(_)) || now >= deadline {
                return Ok(standing);
            }
            tokio::time::sleep(backoff.next_pause().min(deadline - now)).await;
        }
    }

    /// How far the job is now.
    ///
    /// # Errors
    /// The servers'.
    pub async fn look(self, end: &mut CommittedEnd) -> Result<Standing, DatabaseError> {
        let Some(row) = self.row().await? else {
            return Ok(Standing::Deleted);
        };
        let own = own_slot(self.store.table().identity(), &row);
        let slots = find_job_slots(self.target, &own).await?;
        end.leave_out_unflushed(self.target).await?;
        let Some(row) = self.row().await? else {
            return Ok(Standing::Deleted);
        };
        Ok(standing(row, slots, *end))
    }

    async fn row(self) -> Result<Option<JobRow>, DatabaseError> {
        Ok(self.store.rows_with_id(self.job).await?.pop())
    }
}

/// What follows from the slots of a job, and from its row as it was read afterwards.
fn standing(row: JobRow, slots: Vec<JobSlot>, end: CommittedEnd) -> Standing {
    if row.failed || row.canceled {
        return Standing::Ended(Box::new(row));
    }
    if row.progress != InitProgress::Finished {
        return Standing::Pending(Pending::Backfill(Box::new(row)));
    }
    let (mut done, mut behind): (Vec<JobSlot>, Vec<JobSlot>) = slots
        .into_iter()
        .partition(|slot| slot.has_confirmed(end.position()));
    match (behind.pop(), done.pop()) {
        (Some(slot), _) if slot.is_lost => Standing::Pending(Pending::SlotIsLost(slot)),
        (Some(slot), _) => Standing::Pending(Pending::Behind(slot)),
        (None, Some(slot)) => Standing::Done(slot),
        (None, None) => Standing::Pending(Pending::NoSlot),
    }
}
