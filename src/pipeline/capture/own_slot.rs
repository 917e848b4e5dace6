//! The slot and the publication of one job.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::join::{JoinRequest, SubscriberEnds};
use super::open::{Sharing, SlotSource};
use super::slot_reader::SlotReader;
use super::streamable::{Streamable, Unbroken};
use crate::jobs::reporter::Reporter;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::check::Defect;
use crate::pipeline::setup::publication::drop::drop_slot_and_publication;
use crate::pipeline::setup::publication::own;
use crate::pipeline::setup::publication::remove_member::remove_member;
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::names::{JobNames, MemberId};
use crate::pipeline::slot::retention::WatchedSlot;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::pipeline::table::target::TargetTable;
use crate::postgres::{ConnectionString, DatabaseError, Session};
use crate::replication::Lsn;
use crate::status::lag::StreamLag;

/// A job that has a slot of its own.
#[derive(Clone)]
pub struct OwnSlot {
    /// What the job's slots are called.
    pub names: JobNames,
    /// The most WAL that the slot may retain.
    pub limit: RetentionLimit,
    /// Told what the creation of the slot waits for.
    pub reporter: Reporter,
    /// Told how far the stream is behind.
    pub lag: Arc<StreamLag>,
}

impl OwnSlot {
    pub(super) async fn find_unbroken(
        &self,
        session: &Session,
        target: &TargetTable,
    ) -> Result<Option<Unbroken>, JobError> {
        let publication = own::find_unbroken(session, &self.names.own, target).await?;
        Ok(publication.map(Unbroken))
    }

    /// Creates publication and slot. The job's part in a shared slot goes, from a time when the daemon ran with
    /// `--slots database`. A job with passages never had one: where others share a slot, one without a member is that of a
    /// job which is about to join.
    pub(super) async fn set_up(
        &self,
        session: &Session,
        database: &ConnectionString,
        target: &TargetTable,
    ) -> Result<String, JobError> {
        if target.passages.is_none() {
            let member = MemberId::from_slot(&self.names.own);
            remove_member(session, &self.names.shared, &member).await?;
        }
        let slot = NewSlot {
            watched: &self.watched_slot(database.clone()),
            reporter: &self.reporter,
        };
        own::create(session, &slot, target).await
    }

    pub(super) async fn join(
        &self,
        database: &ConnectionString,
        target: &Arc<TargetTable>,
        streamable: &Streamable,
        stop: CancellationToken,
    ) -> Result<SubscriberEnds, JobError> {
        let reader = SlotReader::start(SlotSource {
            database: database.clone(),
            purpose: "job".into(),
            slot: self.names.own.clone(),
            publication: streamable.publication.clone(),
            sharing: Sharing::Own,
            lag: self.lag.clone(),
        });
        let request = JoinRequest {
            member: MemberId::from_slot(&self.names.own),
            target: target.clone(),
            unbroken: streamable.unbroken,
            // The table was published before the slot existed: every change that it brings concerns the job.
            since: Some(Lsn::ZERO),
            stop,
        };
        reader.join(request).await
    }

    pub(super) async fn find_defect(
        &self,
        session: &Session,
        publication: &str,
        target: &TargetTable,
    ) -> Result<Option<Defect>, DatabaseError> {
        own::find_defect(session, publication, target).await
    }

    pub(super) async fn drop_slot(&self, database: &ConnectionString) -> Result<(), JobError> {
        let session = Session::open(database).await?;
        drop_slot_and_publication(&session, &self.names.own).await?;
        Ok(())
    }

    pub(super) fn watched_slot(&self, database: ConnectionString) -> WatchedSlot {
        WatchedSlot {
            database,
            slot: self.names.own.clone(),
            limit: self.limit,
            lag: self.lag.clone(),
        }
    }
}
