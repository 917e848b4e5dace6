//! One table of the publication and its members: those that subscribe now, and those that are absent.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use super::table_changes::{Delivery, OpenTransaction, TableChanges};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::row::{Row, SubscriberId};
use crate::replication::pgoutput::{self, Message, RelationBody, RelationId};
use crate::replication::{Lsn, LsnTracker};

/// By this time a statement whose client is gone has ended: it waits at most 300 ms for its lock.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A published table.
#[derive(Default)]
pub(super) struct PublishedTable {
    /// The last Relation message. The server sends it once; members that join later need it too.
    announced: Option<Box<[u8]>>,
    present: BTreeMap<SubscriberId, (MemberId, TableChanges)>,
    absent: BTreeMap<MemberId, Absent>,
}

/// A member that does not subscribe at the moment.
#[derive(Debug, Clone, Copy)]
struct Absent {
    /// A snapshot of the members that was read before this time does not show that it is no member.
    decided_by: Instant,
    /// Changes have passed that it has yet to get, or rows that it got were not finished.
    missed: bool,
    /// One of those changes is counted in the LSN tracker, and holds the confirmed position until the stream restarts.
    counted: bool,
}

impl PublishedTable {
    /// Adds a subscriber.
    ///
    /// # Errors
    /// When the last Relation message cannot be decoded.
    pub(super) fn add(
        &mut self,
        id: SubscriberId,
        member: MemberId,
        mut changes: TableChanges,
    ) -> Result<(), JobError> {
        if let Some(announced) = &self.announced
            && let Message::Relation(body) = pgoutput::decode(announced)?
        {
            changes.learn_layout(&body);
        }
        self.present.insert(id, (member, changes));
        Ok(())
    }

    /// Adds a member that is known from the publication only.
    pub(super) fn add_absent(&mut self, member: MemberId) {
        self.absent.insert(member, Absent::now());
    }

    /// The member is back. True where it has missed changes while it was absent.
    pub(super) fn end_absence(&mut self, member: &MemberId) -> bool {
        self.absent
            .remove(member)
            .is_some_and(|absent| absent.missed)
    }

    /// A subscriber leaves, and stays a member. Without effect where it has left before.
    pub(super) fn make_absent(&mut self, id: SubscriberId, member: &MemberId) {
        let Some((_, changes)) = self.present.remove(&id) else {
            return;
        };
        let mut absent = Absent::now();
        if !changes.is_admitted() {
            // The statement that makes it a member may still be running.
            absent.decided_by += ADMISSION_TIMEOUT;
        }
        self.absent.insert(member.clone(), absent);
    }

    /// Rows of an absent member may not be finished. What counts them in the LSN tracker may be from before a restart, and
    /// then no longer holds the position; so the next change is counted all the same.
    pub(super) fn note_missed(&mut self, member: &MemberId) {
        if let Some(absent) = self.absent.get_mut(member) {
            absent.missed = true;
        }
    }

    pub(super) fn is_absent(&self, member: &MemberId) -> bool {
        self.absent.contains_key(member)
    }

    pub(super) fn admit(&mut self, id: SubscriberId, since: Lsn) {
        if let Some((_, changes)) = self.present.get_mut(&id) {
            changes.admit(since);
        }
    }

    /// Forgets absent members that the snapshot shows to be members of this table no more. True where one of them has missed
    /// changes.
    pub(super) fn retain_members(
        &mut self,
        table: RelationId,
        snapshot: &MembershipSnapshot,
    ) -> bool {
        let mut held_back = false;
        self.absent.retain(|member, absent| {
            let stays = snapshot.contains(member, table) || absent.decided_by >= snapshot.looked;
            held_back |= !stays && absent.missed;
            stays
        });
        held_back
    }

    /// The stream restarts: the server announces its tables again and repeats changes.
    pub(super) fn restart(&mut self) {
        self.announced = None;
        self.absent.clear();
        for (_, changes) in self.present.values_mut() {
            changes.forget();
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.present.is_empty() && self.absent.is_empty()
    }

    /// The server announces the table: before its first change, and after each alteration. A subscriber that cannot work on
    /// it as it is now gets an error.
    pub(super) fn announce(
        &mut self,
        body: &RelationBody<'_>,
        payload: &[u8],
        transaction: Option<&OpenTransaction>,
        tracker: &mut LsnTracker,
        deliveries: &mut Vec<Delivery>,
    ) {
        self.announced = Some(payload.into());
        for (id, (_, changes)) in &mut self.present {
            changes.learn_layout(body);
            if let Some(transaction) = transaction
                && let Err(error) = changes.layout_for(transaction)
            {
                // The change that follows is not worked on, so its position must not be confirmed.
                tracker.row(transaction.ticket);
                deliveries.push((*id, Err(error)));
            }
        }
    }

    /// A change of the table, which each subscriber reads in its own way.
    pub(super) fn change(
        &mut self,
        transaction: &OpenTransaction,
        tracker: &mut LsnTracker,
        deliveries: &mut Vec<Delivery>,
        read: impl Fn(&mut TableChanges, SubscriberId) -> Result<Option<Row>, JobError>,
    ) {
        for absent in self.absent.values_mut() {
            absent.missed = true;
            if !std::mem::replace(&mut absent.counted, true) {
                tracker.row(transaction.ticket);
            }
        }
        for (id, (_, changes)) in &mut self.present {
            if let Some(delivery) = read(changes, *id).transpose() {
                // Counted with an error too: the change is not worked on.
                tracker.row(transaction.ticket);
                deliveries.push((*id, delivery));
            }
        }
    }
}

impl Absent {
    fn now() -> Self {
        Absent {
            decided_by: Instant::now(),
            missed: false,
            counted: false,
        }
    }
}
