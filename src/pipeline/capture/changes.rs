//! The change filter: from the messages of a stream to the rows that need work.
//!
//! It knows the open transaction, leaves out our own write-backs, and counts in the [`LsnTracker`] every row that it lets
//! through. What a change means for a subscriber is decided in [`table_changes`](super::table_changes); who subscribes is
//! known to [`Subscribers`]. No I/O: bytes in, rows out.

use super::subscribers::Subscribers;
use super::table_changes::{Delivery, OpenTransaction, RowUpdate, TableChanges};
use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{Row, SubscriberId};
use crate::pipeline::table::write_back_marker::WRITE_BACK_MARKER;
use crate::replication::pgoutput::{self, Message, RelationId};
use crate::replication::{Lsn, LsnTracker, Ticket};

/// Reads a stream message by message.
pub(super) struct ChangeFilter {
    tracker: LsnTracker,
    /// An earlier connection may have worked on what committed before this position.
    replayed_until: Lsn,
    transaction: Option<OpenTransaction>,
}

impl ChangeFilter {
    /// For a stream that starts at `start`. Up to `replayed_until`, where the WAL ends now, it may repeat what an earlier
    /// connection has worked on.
    pub(super) fn new(start: Lsn, replayed_until: Lsn) -> Self {
        ChangeFilter {
            tracker: LsnTracker::new(start),
            replayed_until,
            transaction: None,
        }
    }

    /// The stream restarts at `start`. Receipts of rows that were counted before have no effect from now on.
    pub(super) fn restart(&mut self, start: Lsn, replayed_until: Lsn) {
        self.tracker.reset(start);
        self.replayed_until = replayed_until;
        self.transaction = None;
    }

    /// Reads one message. What it means for subscribers is appended to `deliveries`; each row in it is outstanding from now
    /// on.
    ///
    /// # Errors
    /// When the message cannot be decoded.
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        subscribers: &mut Subscribers,
        deliveries: &mut Vec<Delivery>,
    ) -> Result<(), JobError> {
        match pgoutput::decode(payload)? {
            Message::Begin { xid, final_lsn, .. } => self.begin(xid, final_lsn),
            Message::Commit { end_lsn, .. } => {
                self.transaction = None;
                self.tracker.commit(end_lsn);
            }
            Message::LogicalMessage {
                transactional: true,
                prefix: WRITE_BACK_MARKER,
                ..
            } => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.is_write_back = true;
                }
            }
            Message::Relation(body) => subscribers.announced_table(body.id).announce(
                &body,
                payload,
                self.transaction.as_ref(),
                &mut self.tracker,
                deliveries,
            ),
            Message::Insert { relation, new } => {
                self.change(
                    relation,
                    subscribers,
                    deliveries,
                    |changes, transaction, id| changes.insert(transaction, id, &new),
                );
            }
            Message::Update {
                relation,
                key,
                old,
                new,
            } => {
                let update = RowUpdate {
                    old: key.or(old),
                    old_is_whole: old.is_some(),
                    new,
                };
                self.change(
                    relation,
                    subscribers,
                    deliveries,
                    |changes, transaction, id| changes.update(transaction, id, update),
                );
            }
            // Not published, or without a meaning for us. A deleted row needs no vector: work on it misses its guard.
            Message::LogicalMessage { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. }
            | Message::Origin { .. }
            | Message::Type { .. } => {}
        }
        Ok(())
    }

    fn begin(&mut self, xid: u32, final_lsn: Lsn) {
        self.transaction = Some(OpenTransaction {
            ticket: self.tracker.begin(),
            xid,
            commit: final_lsn,
            is_write_back: false,
            is_replayed: final_lsn < self.replayed_until,
        });
    }

    /// A change of one row, which each subscriber of its table reads in its own way. Changes of our write-backs need no work.
    fn change(
        &mut self,
        relation: RelationId,
        subscribers: &mut Subscribers,
        deliveries: &mut Vec<Delivery>,
        read: impl Fn(
            &mut TableChanges,
            &OpenTransaction,
            SubscriberId,
        ) -> Result<Option<Row>, JobError>,
    ) {
        if let Some(transaction) = self.transaction.filter(|open| !open.is_write_back)
            && let Some(table) = subscribers.table(relation)
        {
            table.change(
                &transaction,
                &mut self.tracker,
                deliveries,
                |changes, id| read(changes, &transaction, id),
            );
        }
    }

    /// One row of this transaction is finished.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        self.tracker.finish(ticket);
    }

    /// The server has sent everything up to `wal_end`.
    pub(super) fn keepalive(&mut self, wal_end: Lsn) {
        self.tracker.keepalive(wal_end);
    }

    /// The position up to which every row is finished.
    pub(super) fn confirmed(&self) -> Lsn {
        self.tracker.confirmed()
    }
}
