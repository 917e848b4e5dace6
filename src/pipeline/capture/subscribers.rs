//! Who subscribes to the stream of a slot reader: the one place that knows.
//!
//! ```text
//!            join                    stop                 rows finished, or too late
//! absent ───────────▶ present ───────────────▶ stopping ─────────────────────────────▶ absent
//!    ▲                   └──────────────── leaves at once ────────────────────────────────┘
//!    └── member of the publication, known from its comment; forgotten once it is no member
//! ```
//!
//! A member that is absent is still a member: its membership record says that it has missed nothing. The first change of its
//! table is therefore counted in the LSN tracker and not finished, which keeps the confirmed position before that change.
//! When the member joins again, the stream restarts from there. A stopping subscriber counts as absent for what comes from
//! now on.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Duration, Instant};

use super::in_flight::InFlight;
use super::join::Link;
use super::published_table::PublishedTable;
use super::table_changes::TableChanges;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::row::{LiveAck, Row, SubscriberId};
use crate::replication::Lsn;
use crate::replication::pgoutput::RelationId;

/// How long the rows in flight of a stopping subscriber may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A subscriber asks to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// Once its rows in flight are finished.
    Stops(SubscriberId),
    /// It has dropped its end.
    Left(SubscriberId),
}

/// A job that subscribes now.
struct Subscriber {
    member: MemberId,
    table: RelationId,
    link: Link,
    in_flight: InFlight,
    /// Set when it stops: until when its rows in flight are awaited.
    deadline: Option<Instant>,
}

/// The subscribers of one stream, and the absent members of its publication.
#[derive(Default)]
pub(super) struct Subscribers {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    tables: HashMap<RelationId, PublishedTable>,
    departures: FuturesUnordered<BoxFuture<'static, Departure>>,
    in_flight: InFlight,
}

impl Subscribers {
    /// The stream restarts and repeats what was not confirmed. Subscribers stay; `members` are all members of the
    /// publication with their tables, of which those that do not subscribe are absent.
    pub(super) fn restart(&mut self, members: impl IntoIterator<Item = (MemberId, RelationId)>) {
        for table in self.tables.values_mut() {
            table.restart();
        }
        for (member, table) in members {
            let mut subscribers = self.subscribers.values();
            if !subscribers.any(|present| present.member == member && present.deadline.is_none()) {
                self.tables.entry(table).or_default().add_absent(member);
            }
        }
        self.tables.retain(|_, table| !table.is_unused());
    }

    /// Adds a subscriber. The bool says whether it has missed changes while it was absent, for which the stream has to
    /// restart. `None` where the table's last Relation message cannot be decoded; then the subscriber has been told so.
    pub(super) fn join(
        &mut self,
        member: MemberId,
        table: RelationId,
        changes: TableChanges,
        link: Link,
    ) -> Option<(SubscriberId, bool)> {
        let id = SubscriberId::unique();
        let published = self.tables.entry(table).or_default();
        if let Err(error) = published.add(id, member.clone(), changes) {
            let _ = link.ended.send(Err(error));
            return None;
        }
        // It may have been absent with another table of the same name, which was dropped since.
        let mut missed = false;
        for table in self.tables.values_mut() {
            missed |= table.end_absence(&member);
        }
        self.departures.push(departure(id, &link));
        let subscriber = Subscriber {
            member,
            table,
            link,
            in_flight: InFlight::default(),
            deadline: None,
        };
        self.subscribers.insert(id, subscriber);
        Some((id, missed))
    }

    /// Whether this member is known to be absent.
    pub(super) fn is_absent(&self, member: &MemberId) -> bool {
        self.tables.values().any(|table| table.is_absent(member))
    }

    /// The subscriber's table is published for it from `since` on.
    pub(super) fn admit(&mut self, id: SubscriberId, since: Lsn) {
        if let Some(subscriber) = self.subscribers.get(&id)
            && let Some(table) = self.tables.get_mut(&subscriber.table)
        {
            table.admit(id, since);
        }
    }

    /// The next subscriber that asks to leave. Pends forever while there is none. Cancellation safe.
    pub(super) async fn departure(&mut self) -> Departure {
        match self.departures.next().await {
            Some(departure) => departure,
            None => std::future::pending().await,
        }
    }

    /// The subscriber gets no more rows. Those in flight have [`STOP_TIMEOUT`] to finish.
    pub(super) fn stop(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        subscriber.deadline = Some(Instant::now() + STOP_TIMEOUT);
        let left = subscriber.link.left.clone();
        self.departures.push(Box::pin(async move {
            left.cancelled().await;
            Departure::Left(id)
        }));
        if let Some(table) = self.tables.get_mut(&subscriber.table) {
            table.make_absent(id, &subscriber.member);
        }
    }

    /// Stopping subscribers whose rows are finished, or have had their time.
    pub(super) fn stopped(&self) -> Vec<SubscriberId> {
        let now = Instant::now();
        let is_stopped = |subscriber: &Subscriber| {
            subscriber
                .deadline
                .is_some_and(|deadline| subscriber.in_flight.rows == 0 || deadline <= now)
        };
        let stopped = self
            .subscribers
            .iter()
            .filter(|(_, subscriber)| is_stopped(subscriber));
        stopped.map(|(id, _)| *id).collect()
    }

    /// Removes a subscriber and tells it how its subscription ended. Returns the number of its rows in flight: they may never
    /// be finished, so the member counts as having missed changes.
    pub(super) fn leave(&mut self, id: SubscriberId, ended: Result<(), JobError>) -> usize {
        let Some(subscriber) = self.subscribers.remove(&id) else {
            return 0;
        };
        let unfinished = subscriber.in_flight.rows;
        self.in_flight.write_off(subscriber.in_flight);
        if let Some(table) = self.tables.get_mut(&subscriber.table) {
            table.make_absent(id, &subscriber.member);
            // An error stands for the change that caused it, which was counted too.
            if unfinished > 0 || ended.is_err() {
                table.note_missed(&subscriber.member);
            }
        }
        let _ = subscriber.link.ended.send(ended);
        unfinished
    }

    /// Forgets absent members that are members no more. True where one of them has missed changes: the position can then
    /// only advance after a restart.
    pub(super) fn retain_members(&mut self, snapshot: &MembershipSnapshot) -> bool {
        let mut held_back = false;
        for (id, table) in &mut self.tables {
            held_back |= table.retain_members(*id, snapshot);
        }
        held_back
    }

    /// The table with this OID, if a member has it.
    pub(super) fn table(&mut self, id: RelationId) -> Option<&mut PublishedTable> {
        self.tables.get_mut(&id)
    }

    /// The table with this OID, which the server has announced.
    pub(super) fn announced_table(&mut self, id: RelationId) -> &mut PublishedTable {
        self.tables.entry(id).or_default()
    }

    /// Sends a row to its subscriber. Returns without waiting, because a subscriber's channel holds as many rows as may be in
    /// flight. False where the subscriber takes no more.
    pub(super) async fn send(&mut self, id: SubscriberId, row: Row) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return false;
        };
        let bytes = row.ack.bytes();
        if subscriber.link.rows.send(row).await.is_err() {
            return false;
        }
        subscriber.in_flight.add(bytes);
        self.in_flight.add(bytes);
        true
    }

    /// A row is finished. False where its subscriber has left: then the row was written off and counts as missed.
    pub(super) fn settle(&mut self, ack: &LiveAck) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(&ack.subscriber) else {
            return false;
        };
        subscriber.in_flight.settle(ack.bytes);
        self.in_flight.settle(ack.bytes);
        true
    }

    /// Whether more may be read: there is room, and a subscriber that is not stopping.
    pub(super) fn want_more(&self) -> bool {
        self.in_flight.has_room()
            && self
                .subscribers
                .values()
                .any(|subscriber| subscriber.deadline.is_none())
    }

    /// The number of subscribers, stopping ones included.
    pub(super) fn count(&self) -> usize {
        self.subscribers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Tells every subscriber that the stream has ended.
    pub(super) fn fail_all(&mut self, error: &JobError) {
        while let Some((_, subscriber)) = self.subscribers.pop_first() {
            let _ = subscriber.link.ended.send(Err(error.for_each_job()));
        }
        self.in_flight = InFlight::default();
    }
}

/// Resolves when a new subscriber stops or leaves.
fn departure(id: SubscriberId, link: &Link) -> BoxFuture<'static, Departure> {
    let (stop, left) = (link.stop.clone(), link.left.clone());
    Box::pin(async move {
        tokio::select! {
            biased;
            () = left.cancelled() => Departure::Left(id),
            () = stop.cancelled() => Departure::Stops(id),
        }
    })
}
