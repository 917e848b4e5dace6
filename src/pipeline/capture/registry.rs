//! The shared feeds of a daemon, one for each database that its jobs name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::capture::open::{Sharing, SlotSource};
use crate::pipeline::capture::slot_reader::{Member, Membership, SlotReader};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::remove_member::remove_deleted_members;
use crate::pipeline::setup::publication::shared;
use crate::pipeline::slot::create::NewSlot;
use crate::pipeline::slot::names::MemberId;
use crate::postgres::Session;
use crate::replication::SlotName;

/// Finds the feed of a database, or starts it. Clones share it.
#[derive(Clone, Default)]
pub struct ReaderRegistry(Arc<Registry>);

#[derive(Default)]
struct Registry {
    /// One task at a time sets a slot up. Never held while a table is waited for.
    by_slot: Mutex<BTreeMap<SlotName, Arc<tokio::sync::Mutex<Option<SlotReader>>>>>,
    /// The jobs that have rows.
    known: Mutex<BTreeSet<MemberId>>,
}

impl ReaderRegistry {
    /// These are all jobs that there are. What a slot keeps for others is forgotten when its feed starts.
    pub fn know(&self, members: BTreeSet<MemberId>) {
        *lock(&self.0.known) = members;
    }

    /// Takes a seat at the shared feed, which reads this slot. Returns when the stream has begun. A member that is not intact is
    /// taken into the publication after that ([`add_member`](crate::pipeline::setup::publication::add_member::add_member)): so no change of its table goes by unseen.
    ///
    /// # Errors
    /// Whatever keeps slot and publication from being made or the stream from beginning.
    ///
    /// Cancellation safe: what is left half done is completed or undone by the next one.
    pub async fn join(
        &self,
        session: &Session,
        slot: &NewSlot<'_>,
        member: Member,
    ) -> Result<Membership, JobError> {
        let feed = self.feed(session, slot).await?;
        if member.intact {
            let since = shared::member_since(session, &slot.watched.slot, &member.id).await?;
            let _ = member.since.set(since);
        }
        feed.join(member).await
    }

    /// The running feed, or a new one. Where slot or publication are of no use, whatever streams from them ends first.
    async fn feed(&self, session: &Session, slot: &NewSlot<'_>) -> Result<SlotReader, JobError> {
        let watched = slot.watched.clone();
        let entry = lock(&self.0.by_slot)
            .entry(watched.slot.clone())
            .or_default()
            .clone();
        let mut running = entry.lock().await;
        let usable = shared::is_usable(session, &watched.slot).await?;
        match &*running {
            Some(feed) if usable && !feed.is_over() => return Ok(feed.clone()),
            Some(feed) => feed.end.cancel(),
            None => {}
        }
        if usable {
            let known = lock(&self.0.known).clone();
            remove_deleted_members(session, &watched.slot, &known).await?;
        }
        // The last of those who are gone may have taken it along.
        if !usable || !shared::is_usable(session, &watched.slot).await? {
            shared::create(session, slot).await?;
        }
        let feed = SlotReader::start(SlotSource {
            database: watched.database,
            purpose: "all jobs".into(),
            publication: watched.slot.to_string(),
            slot: watched.slot,
            sharing: Sharing::Shared(watched.limit),
        });
        *running = Some(feed.clone());
        Ok(feed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
