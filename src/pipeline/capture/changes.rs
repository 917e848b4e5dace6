//! From decoded messages to the rows that need work.
//!
//! Keeps what the stream is in the middle of (the open transaction, the relations that were announced), leaves out what is no
//! news (our own write-backs, unrelated updates), and counts every row that it lets through in the [`LsnTracker`].
//! No I/O: bytes in, rows out.
//!
//! A stream may have several members, also on one table. Each sits on a seat of its own and gets its own rows. A member that
//! is away is still a member: its first change that passes is counted and never finished, so that the confirmed position
//! stays before it until the member is back and the stream is begun again, or until it is a member no more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use tokio::time::{Duration, Instant};

use crate::pipeline::capture::table_changes::{OpenTransaction, Table, Update};
use crate::pipeline::error::JobError;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::row::Row;
use crate::pipeline::table::row::SubscriberId;
use crate::pipeline::table::target::TargetTable;
use crate::pipeline::table::write_back_marker::WRITE_BACK_MARKER;
use crate::replication::pgoutput::{Message, RelationBody, RelationId};
use crate::replication::{Lsn, LsnTracker, Ticket, pgoutput};

/// A statement that nobody waits for any more comes to its end within this time: it waits for a lock for 300 ms at most.
const ADMISSION: Duration = Duration::from_secs(10);

/// What a message means for one member: a row that needs work, or that it cannot work on its table any more.
pub type Delivery = (SubscriberId, Result<Row, JobError>);

pub struct ChangeFilter {
    tracker: LsnTracker,
    /// What was committed up to here may have been worked on before.
    replayed_until: Lsn,
    transaction: Option<OpenTransaction>,
    relations: HashMap<RelationId, Relation>,
}

/// A published relation and who follows it.
#[derive(Default)]
struct Relation {
    /// The last Relation message, which comes once: for members that join later.
    announced: Option<Box<[u8]>>,
    seated: BTreeMap<SubscriberId, (MemberId, Table)>,
    away: BTreeMap<MemberId, Away>,
}

#[derive(Debug, Clone, Copy)]
struct Away {
    /// What was so before this moment does not say that it is no member.
    settled: Instant,
    /// Changes have passed that it has yet to work on.
    missed: bool,
}

impl ChangeFilter {
    /// The stream starts at `start`; up to `replayed_until`, where the log ends now, it may repeat what an earlier attempt has
    /// worked on.
    pub fn new(start: Lsn, replayed_until: Lsn) -> Self {
        ChangeFilter {
            tracker: LsnTracker::new(start),
            replayed_until,
            transaction: None,
            relations: HashMap::new(),
        }
    }

    /// The stream begins anew. Whatever was not confirmed comes again, so nothing that was taken in before counts; members
    /// stay. `marked` are all members that there are, with their tables.
    pub fn restart(
        &mut self,
        start: Lsn,
        replayed_until: Lsn,
        marked: impl IntoIterator<Item = (MemberId, RelationId)>,
    ) {
        self.tracker.reset(start);
        self.replayed_until = replayed_until;
        self.transaction = None;
        for relation in self.relations.values_mut() {
            relation.announced = None;
            relation.away.clear();
            for (_, table) in relation.seated.values_mut() {
                table.forget();
            }
        }
        for (id, table) in marked {
            let relation = self.relations.entry(table).or_default();
            if !relation.seated.values().any(|(seated, _)| *seated == id) {
                relation.away.insert(id, Away::now(false));
            }
        }
        self.relations
            .retain(|_, relation| !relation.seated.is_empty() || !relation.away.is_empty());
    }

    /// A member comes, or comes back; it gets what is committed since that position. True where it has missed changes, so that
    /// the stream has to begin again.
    ///
    /// # Errors
    /// When the relation's message cannot be understood.
    pub fn seat(
        &mut self,
        seat: SubscriberId,
        id: MemberId,
        target: Arc<TargetTable>,
        since: Arc<OnceLock<Lsn>>,
    ) -> Result<bool, JobError> {
        let relation = self.relations.entry(RelationId(target.oid)).or_default();
        let mut table = Table::new(target, since);
        if let Some(announced) = &relation.announced
            && let Message::Relation(body) = decode(announced)?
        {
            table.learn(&body);
        }
        let missed = relation.away.remove(&id).is_some_and(|away| away.missed);
        relation.seated.insert(seat, (id, table));
        Ok(missed)
    }

    /// A member goes; `unfinished` where rows that were counted for it are not finished, and may never be: those under way, and
    /// the change that an error came of.
    pub fn leave(&mut self, seat: SubscriberId, unfinished: bool) {
        for relation in self.relations.values_mut() {
            if let Some((id, table)) = relation.seated.remove(&seat) {
                let mut away = Away::now(unfinished);
                if !table.is_admitted() {
                    // The statement that makes it a member may still be under way.
                    away.settled += ADMISSION;
                }
                relation.away.insert(id, away);
            }
        }
    }

    /// Rows of a member that is away will not be finished after all.
    pub fn miss(&mut self, id: &MemberId) {
        for relation in self.relations.values_mut() {
            if let Some(away) = relation.away.get_mut(id) {
                away.missed = true;
            }
        }
    }

    /// Whether this member is known to be away.
    pub fn is_away(&self, id: &MemberId) -> bool {
        self.relations
            .values()
            .any(|relation| relation.away.contains_key(id))
    }

    /// Forgets members that are away and are no members any more, going by what was so at `looked`. True where one of them
    /// had missed changes, so that the stream has to begin again for the position to move.
    pub fn retain(&mut self, looked: Instant, is_member: impl Fn(&MemberId) -> bool) -> bool {
        let mut held_back = false;
        for relation in self.relations.values_mut() {
            relation.away.retain(|id, away| {
                let stays = is_member(id) || away.settled >= looked;
                held_back |= !stays && away.missed;
                stays
            });
        }
        held_back
    }

    /// Takes one message in; what it means for the members goes to `deliveries`, and each row is outstanding from now on.
    ///
    /// # Errors
    /// When the message cannot be understood.
    pub fn take(&mut self, payload: &[u8], deliveries: &mut Vec<Delivery>) -> Result<(), JobError> {
        match decode(payload)? {
            Message::Begin { xid, final_lsn, .. } => {
                let ticket = self.tracker.begin();
                self.transaction = Some(OpenTransaction {
                    ticket,
                    xid,
                    commit: final_lsn,
                    own: false,
                    replayed: final_lsn < self.replayed_until,
                });
            }
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
                    transaction.own = true;
                }
            }
            Message::Relation(relation) => self.announce(&relation, payload, deliveries),
            Message::Insert { relation, new } => {
                self.change(relation, deliveries, |table, transaction, seat| {
                    table.insert(transaction, seat, &new)
                });
            }
            Message::Update {
                relation,
                key,
                old,
                new,
            } => {
                let update = Update {
                    old: key.or(old),
                    old_is_whole: old.is_some(),
                    new,
                };
                self.change(relation, deliveries, |table, transaction, seat| {
                    table.update(transaction, seat, update)
                });
            }
            Message::LogicalMessage { .. }
            | Message::Delete { .. }
            | Message::Truncate { .. }
            | Message::Origin { .. }
            | Message::Type { .. } => {}
        }
        Ok(())
    }

    /// One row of this transaction is finished.
    pub fn finish(&mut self, ticket: Ticket) {
        self.tracker.finish(ticket);
    }

    /// The server has sent everything up to `wal_end`.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        self.tracker.keepalive(wal_end);
    }

    /// The position up to which everything is done.
    pub fn confirmed(&self) -> Lsn {
        self.tracker.confirmed()
    }

    /// A Relation message comes before the first change of a table and after each of its alterations.
    fn announce(
        &mut self,
        body: &RelationBody<'_>,
        payload: &[u8],
        deliveries: &mut Vec<Delivery>,
    ) {
        let relation = self.relations.entry(body.id).or_default();
        relation.announced = Some(payload.into());
        for (seat, (_, table)) in &mut relation.seated {
            table.learn(body);
            if let Some(transaction) = &self.transaction
                && let Err(error) = table.check(transaction)
            {
                // The change that comes next is not worked on.
                self.tracker.row(transaction.ticket);
                deliveries.push((*seat, Err(error)));
            }
        }
    }

    /// An insert or update of a relation, which each of its members takes in its own way.
    fn change(
        &mut self,
        relation: RelationId,
        deliveries: &mut Vec<Delivery>,
        take: impl Fn(&mut Table, &OpenTransaction, SubscriberId) -> Result<Option<Row>, JobError>,
    ) {
        let Some(transaction) = self.transaction.as_ref().filter(|open| !open.own) else {
            return;
        };
        let Some(relation) = self.relations.get_mut(&relation) else {
            return;
        };
        for away in relation.away.values_mut() {
            if !std::mem::replace(&mut away.missed, true) {
                self.tracker.row(transaction.ticket);
            }
        }
        for (seat, (_, table)) in &mut relation.seated {
            if let Some(delivery) = take(table, transaction, *seat).transpose() {
                // With an error too: the change is not worked on.
                self.tracker.row(transaction.ticket);
                deliveries.push((*seat, delivery));
            }
        }
    }
}

impl Away {
    fn now(missed: bool) -> Self {
        Away {
            settled: Instant::now(),
            missed,
        }
    }
}

fn decode(payload: &[u8]) -> Result<Message<'_>, JobError> {
    pgoutput::decode(payload).map_err(|error| {
        JobError::Transient(format!("the replication stream is not understood: {error}"))
    })
}
