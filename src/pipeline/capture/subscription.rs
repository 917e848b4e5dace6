//! How a job gets the changes of its table: from a slot of its own, or from one that all jobs of the database share.
//!
//! Both take the same steps, in this order:
//!
//! | step | called in | own slot | shared slot |
//! | --- | --- | --- | --- |
//! | `find_unbroken` | `job/prepare.rs` | publication fits, slot usable | membership record valid, slot usable |
//! | `set_up` | `job/prepare.rs` | create publication and slot | nothing yet |
//! | `join` | `job/prepare.rs` | start a reader for this job | join the database's reader, which creates the slot |
//! | `admit` | `job/stream.rs` | nothing | add the table to the publication |
//! | `find_defect`, each second | `job/watchdog.rs` | publication altered or gone | the same, for the member |

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::join::{Admission, SubscriberEnds};
use super::own_slot::OwnSlot;
use super::shared_slot::SharedSlot;
use super::streamable::{Streamable, Unbroken};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::preflight::publishing::SlotPlan;
use crate::pipeline::setup::publication::check::Defect;
use crate::pipeline::slot::names::JobNames;
use crate::pipeline::slot::retention::WatchedSlot;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::SlotName;

/// A job's way to its changes.
#[derive(Clone)]
pub enum Subscription {
    /// A slot and a publication of its own.
    Own(OwnSlot),
    /// A part in the slot and the publication of its database.
    Shared(SharedSlot),
}

impl Subscription {
    /// The slot that is read.
    pub fn slot(&self) -> &SlotName {
        match self {
            Subscription::Own(own) => &own.names.own,
            Subscription::Shared(shared) => &shared.names.shared,
        }
    }

    /// The name of the job under its definition, for what must be its alone whichever slot it reads.
    pub fn name(&self) -> &SlotName {
        match self {
            Subscription::Own(own) => &own.names.own,
            Subscription::Shared(shared) => &shared.names.own,
        }
    }

    /// What the job's slots are called.
    pub fn names(&self) -> &JobNames {
        match self {
            Subscription::Own(own) => &own.names,
            Subscription::Shared(shared) => &shared.names,
        }
    }

    /// Which slot and publication the job gets, for the preflight.
    pub fn plan(&self) -> SlotPlan<'_> {
        match self {
            Subscription::Own(own) => SlotPlan::Own(Some(&own.names)),
            Subscription::Shared(shared) => SlotPlan::Shared(Some(&shared.names)),
        }
    }

    /// The publication, if it and the slot are complete and no change can have been missed. `None` where some may have been,
    /// or nothing exists yet.
    ///
    /// # Errors
    /// The server's.
    pub async fn find_unbroken(
        &self,
        session: &Session,
        target: &TargetTable,
    ) -> Result<Option<Unbroken>, JobError> {
        match self {
            Subscription::Own(own) => own.find_unbroken(session, target).await,
            Subscription::Shared(shared) => shared.find_unbroken(session, target).await,
        }
    }

    /// Creates what is the job's alone, unless its stream is unbroken. Removes what the job has of the other kind.
    ///
    /// # Errors
    /// Permanent ones with the statement that an administrator can run instead; transient ones where a lock could not be
    /// acquired.
    pub async fn set_up(
        &self,
        session: &Session,
        database: &ConnectionString,
        target: &TargetTable,
        unbroken: Option<Unbroken>,
    ) -> Result<Streamable, JobError> {
        if let Some(Unbroken(publication)) = unbroken {
            return Ok(Streamable {
                publication,
                unbroken: true,
            });
        }
        let publication = match self {
            Subscription::Own(own) => own.set_up(session, database, target).await?,
            Subscription::Shared(shared) => shared.set_up(session).await?,
        };
        Ok(Streamable {
            publication,
            unbroken: false,
        })
    }

    /// Opens the stream and subscribes to it. A shared slot that does not exist or is unusable is created first.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// Whatever prevents the stream from opening.
    pub async fn join(
        &self,
        session: &Session,
        database: &ConnectionString,
        target: &Arc<TargetTable>,
        streamable: &Streamable,
        stop: CancellationToken,
    ) -> Result<SubscriberEnds, JobError> {
        match self {
            Subscription::Own(own) => own.join(database, target, streamable, stop).await,
            Subscription::Shared(shared) => {
                shared
                    .join(session, database, target, streamable, stop)
                    .await
            }
        }
    }

    /// Ensures that every change of the table that a scan from now on may not find comes through the stream.
    ///
    /// This may have to wait for a lock on the table. The job must work on its rows meanwhile, because other jobs of the same
    /// slot wait behind them.
    ///
    /// # Errors
    /// Transient: the lock could not be acquired, or the stream is no longer unbroken. Permanent ones with a remedy.
    pub async fn admit(
        &self,
        session: &Session,
        target: &TargetTable,
        streamable: &Streamable,
        admission: &Admission,
    ) -> Result<(), JobError> {
        match self {
            Subscription::Own(_) => Ok(()),
            Subscription::Shared(shared) => {
                shared.admit(session, target, streamable, admission).await
            }
        }
    }

    /// Why the publication no longer serves the job.
    ///
    /// # Errors
    /// The server's.
    pub async fn find_defect(
        &self,
        session: &Session,
        publication: &str,
        target: &TargetTable,
    ) -> Result<Option<Defect>, DatabaseError> {
        match self {
            Subscription::Own(own) => own.find_defect(session, publication, target).await,
            Subscription::Shared(shared) => shared.find_defect(session, target).await,
        }
    }

    /// Drops a slot that has become unusable. That it is absent tells the next attempt, on another daemon too, that changes
    /// were missed. A shared slot has been dropped by its reader.
    ///
    /// # Errors
    /// The server's.
    pub async fn drop_slot(&self, database: &ConnectionString) -> Result<(), JobError> {
        match self {
            Subscription::Own(own) => own.drop_slot(database).await,
            Subscription::Shared(_) => Ok(()),
        }
    }

    /// Removes what the job has on the server, so that nothing of it does harm until the next attempt: publication and slot,
    /// or its part in shared ones.
    ///
    /// # Errors
    /// The server's.
    pub async fn withdraw(&self, database: &ConnectionString) -> Result<(), JobError> {
        match self {
            Subscription::Own(own) => own.drop_slot(database).await,
            Subscription::Shared(shared) => shared.withdraw(database).await,
        }
    }

    /// The slot whose retained WAL the job watches; `None` for a shared one, which its reader watches.
    pub fn watched_slot(&self, database: ConnectionString) -> Option<WatchedSlot> {
        match self {
            Subscription::Own(own) => Some(own.watched_slot(database)),
            Subscription::Shared(_) => None,
        }
    }
}
