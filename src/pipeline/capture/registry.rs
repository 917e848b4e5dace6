//! The shared slot readers of a daemon, one for each database that its jobs name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::join::{JoinRequest, SubscriberEnds};
use super::open::{Sharing, SlotSource};
use super::slot_reader::SlotReader;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::remove_member::remove_deleted_members;
use crate::pipeline::setup::publication::shared;
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::names::MemberId;
use crate::postgres::Session;
use crate::replication::SlotName;
use crate::status::lag::StreamLag;

/// Finds the slot reader of a database, or starts it. Clones share the registry.
#[derive(Clone, Default)]
pub struct ReaderRegistry(Arc<Readers>);

#[derive(Default)]
struct Readers {
    /// One task at a time sets a slot up: it holds the inner lock meanwhile, but never while it waits for a table.
    by_slot: Mutex<BTreeMap<SlotName, Entry>>,
    /// The members of all jobs in the jobs table.
    known: Mutex<BTreeSet<MemberId>>,
    /// How far each slot is behind.
    lags: Mutex<BTreeMap<SlotName, Arc<StreamLag>>>,
}

type Entry = Arc<tokio::sync::Mutex<Option<SlotReader>>>;

impl ReaderRegistry {
    /// Replaces the list of jobs in the jobs table. When a shared slot reader starts, it removes members that are not in it.
    pub fn set_known(&self, members: BTreeSet<MemberId>) {
        *lock(&self.0.known) = members;
    }

    /// How far this slot is behind.
    pub fn lag(&self, slot: &SlotName) -> Arc<StreamLag> {
        lock(&self.0.lags).entry(slot.clone()).or_default().clone()
    }

    /// Subscribes to the reader of this slot; returns when the stream has been opened.
    ///
    /// The table of a member whose stream is not unbroken is added to the publication after that
    /// ([`add_member`](crate::pipeline::setup::publication::add_member::add_member)), so that no change of it passes unseen.
    ///
    /// Cancellation safe: the next call completes or undoes what is half done.
    ///
    /// # Errors
    /// Whatever prevents slot and publication from being created, or the stream from opening.
    pub async fn join(
        &self,
        session: &Session,
        slot: &NewSlot<'_>,
        mut request: JoinRequest,
    ) -> Result<SubscriberEnds, JobError> {
        let reader = self.reader(session, slot).await?;
        if request.unbroken {
            let since = shared::member_since(session, &slot.watched.slot, &request.member).await?;
            request.since = Some(since);
        }
        reader.join(request).await
    }

    /// The running reader, or a new one. Where slot or publication are unusable, the reader that streams from them ends first.
    async fn reader(&self, session: &Session, slot: &NewSlot<'_>) -> Result<SlotReader, JobError> {
        let watched = slot.watched.clone();
        let entry = lock(&self.0.by_slot)
            .entry(watched.slot.clone())
            .or_default()
            .clone();
        let mut running = entry.lock().await;
        let is_usable = shared::is_usable(session, &watched.slot).await?;
        match &*running {
            Some(reader) if is_usable && !reader.has_ended() => return Ok(reader.clone()),
            Some(reader) => reader.cancel(),
            None => {}
        }
        if is_usable {
            let known = lock(&self.0.known).clone();
            remove_deleted_members(session, &watched.slot, &known).await?;
        }
        // Asked again: with the last of the deleted members, slot and publication were dropped.
        if !is_usable || !shared::is_usable(session, &watched.slot).await? {
            shared::create(session, slot).await?;
        }
        let reader = SlotReader::start(SlotSource {
            database: watched.database,
            purpose: "all jobs".into(),
            publication: watched.slot.to_string(),
            slot: watched.slot,
            sharing: Sharing::Shared(watched.limit),
            lag: watched.lag,
        });
        *running = Some(reader.clone());
        Ok(reader)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks, so a poisoned one still guards sound data.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
