//! A job's part in the slot and the publication that all jobs of its database share (`--slots database`).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::join::{Admission, JoinRequest, SubscriberEnds};
use super::registry::ReaderRegistry;
use super::streamable::{Streamable, Unbroken};
use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::add_member::add_member;
use crate::pipeline::setup::publication::catalog::is_redefined_since_published;
use crate::pipeline::setup::publication::check::{Defect, listed_columns};
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::remove_member::remove_member;
use crate::pipeline::setup::publication::shared;
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::names::{JobNames, MemberId};
use crate::pipeline::slot::retention::WatchedSlot;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, DatabaseError, Session};

/// A job that shares a slot with the other jobs of its database.
#[derive(Clone)]
pub struct SharedSlot {
    /// What the job's slots are called.
    pub names: JobNames,
    /// Where the reader of the slot is found.
    pub registry: ReaderRegistry,
    /// The most WAL that the slot may retain.
    pub limit: RetentionLimit,
    /// Told what the creation of the slot waits for.
    pub reporter: Reporter,
}

impl SharedSlot {
    fn member(&self) -> MemberId {
        MemberId::from_slot(&self.names.own)
    }

    pub(super) async fn find_unbroken(
        &self,
        session: &Session,
        target: &TargetTable,
    ) -> Result<Option<Unbroken>, JobError> {
        let name = &self.names.shared;
        if !shared::is_usable(session, name).await? {
            return Ok(None);
        }
        if let Some(Defect { reason, .. }) = self.find_defect(session, target).await? {
            tracing::debug!("the publication {name} {reason}");
            return Ok(None);
        }
        let listed = listed_columns(session, target).unwrap_or_default();
        if is_redefined_since_published(session, name.as_str(), target, &listed).await? {
            tracing::warn!("{}", target.redefined());
            return Ok(None);
        }
        Ok(Some(Unbroken(name.to_string())))
    }

    /// The slot is created when its reader starts. The job's own slot goes, from a time when the daemon ran with
    /// `--slots job`.
    pub(super) async fn set_up(&self, session: &Session) -> Result<String, JobError> {
        drop_slot_and_publication(session, &self.names.own).await?;
        Ok(self.names.shared.to_string())
    }

    pub(super) async fn join(
        &self,
        session: &Session,
        database: &ConnectionString,
        target: &Arc<TargetTable>,
        streamable: &Streamable,
        stop: CancellationToken,
    ) -> Result<SubscriberEnds, JobError> {
        let watched = WatchedSlot {
            database: database.clone(),
            slot: self.names.shared.clone(),
            limit: self.limit,
            lag: self.registry.lag(&self.names.shared),
        };
        let slot = NewSlot {
            watched: &watched,
            reporter: &self.reporter,
        };
        let request = JoinRequest {
            member: self.member(),
            target: target.clone(),
            unbroken: streamable.unbroken,
            since: None,
            stop,
        };
        self.registry.join(session, &slot, request).await
    }

    pub(super) async fn admit(
        &self,
        session: &Session,
        target: &TargetTable,
        streamable: &Streamable,
        admission: &Admission,
    ) -> Result<(), JobError> {
        if !streamable.unbroken {
            let since = add_member(session, &self.names.shared, &self.member(), target).await?;
            admission.grant(since).await;
            return Ok(());
        }
        // It was unbroken before the job subscribed. Only if it still is has no change passed in between.
        match self.find_defect(session, target).await? {
            None => Ok(()),
            Some(Defect { reason, .. }) => Err(JobError::Transient(format!(
                "the publication {} {reason}",
                self.names.shared
            ))),
        }
    }

    pub(super) async fn find_defect(
        &self,
        session: &Session,
        target: &TargetTable,
    ) -> Result<Option<Defect>, DatabaseError> {
        shared::find_defect(session, &self.names.shared, &self.member(), target).await
    }

    /// Ends the membership. The slot goes with the last member.
    pub(super) async fn withdraw(&self, database: &ConnectionString) -> Result<(), JobError> {
        let session = Session::open(database).await?;
        remove_member(&session, &self.names.shared, &self.member()).await?;
        Ok(())
    }
}
