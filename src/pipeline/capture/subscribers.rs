//! The members that are served now: where their rows go, how many are under way, and when they go.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::pipeline::error::JobError;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::row::{LiveAck, Row, SubscriberId};

/// How long rows under way may take to finish when a member is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The feed's end of what connects it with a member.
pub(super) struct Link {
    pub id: MemberId,
    pub live: mpsc::Sender<Row>,
    /// Told once: how the membership ended.
    pub ended: oneshot::Sender<Result<(), JobError>>,
    /// The member wants to finish what is under way, and no more.
    pub stop: CancellationToken,
    /// The member is gone.
    pub gone: CancellationToken,
}

/// A member asks to be let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// Once its rows are finished.
    Stops(SubscriberId),
    /// It has gone already.
    Gone(SubscriberId),
}

struct Member {
    link: Link,
    rows: usize,
    bytes: usize,
    /// Set when it wants to stop: until when its rows are waited for.
    deadline: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Subscribers {
    members: BTreeMap<SubscriberId, Member>,
    departures: FuturesUnordered<BoxFuture<'static, Departure>>,
    rows: usize,
    bytes: usize,
    next: u64,
}

impl Subscribers {
    /// Gives a member the next seat.
    pub(super) fn add(&mut self, link: Link) -> SubscriberId {
        let seat = SubscriberId(self.next);
        self.next += 1;
        let (stop, gone) = (link.stop.clone(), link.gone.clone());
        self.departures.push(Box::pin(async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => Departure::Gone(seat),
                () = stop.cancelled() => Departure::Stops(seat),
            }
        }));
        let member = Member {
            link,
            rows: 0,
            bytes: 0,
            deadline: None,
        };
        self.members.insert(seat, member);
        seat
    }

    /// The next member that wants to go. Pends for ever while there is none. Cancellation safe.
    pub(super) async fn departure(&mut self) -> Departure {
        let departure = match self.departures.next().await {
            Some(departure) => departure,
            None => std::future::pending().await,
        };
        if let Departure::Stops(seat) = departure
            && let Some(member) = self.members.get_mut(&seat)
        {
            member.deadline = Some(Instant::now() + GRACE);
            let gone = member.link.gone.clone();
            self.departures.push(Box::pin(async move {
                gone.cancelled().await;
                Departure::Gone(seat)
            }));
        }
        departure
    }

    /// Sends a row to its member, which has room for it: no more rows are out than its channel holds. False where the member
    /// takes no more.
    pub(super) async fn send(&mut self, seat: SubscriberId, row: Row) -> bool {
        let Some(member) = self.members.get_mut(&seat) else {
            return false;
        };
        let bytes = row.ack.bytes();
        if member.link.live.send(row).await.is_err() {
            return false;
        }
        member.rows += 1;
        member.bytes += bytes;
        self.rows += 1;
        self.bytes += bytes;
        true
    }

    /// A row has come back. One of a member that has gone was written off with it.
    pub(super) fn take_back(&mut self, ack: &LiveAck) {
        if let Some(member) = self.members.get_mut(&ack.subscriber) {
            member.rows -= 1;
            member.bytes -= ack.bytes;
            self.rows -= 1;
            self.bytes -= ack.bytes;
        }
    }

    /// Lets a member go; returns its end of the line, and how many of its rows are under way.
    pub(super) fn remove(&mut self, seat: SubscriberId) -> Option<(Link, usize)> {
        let member = self.members.remove(&seat)?;
        self.rows -= member.rows;
        self.bytes -= member.bytes;
        Some((member.link, member.rows))
    }

    /// Members that want to stop and whose rows are finished, or have had their time.
    pub(super) fn ready_to_stop(&self) -> Vec<SubscriberId> {
        let now = Instant::now();
        let ready = |member: &Member| {
            let due = |deadline| member.rows == 0 || deadline <= now;
            member.deadline.is_some_and(due)
        };
        let ready = self.members.iter().filter(|(_, member)| ready(member));
        ready.map(|(seat, _)| *seat).collect()
    }

    /// Whether anybody wants more rows.
    pub(super) fn wants_more(&self) -> bool {
        self.members
            .values()
            .any(|member| member.deadline.is_none())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tells everybody that it is over.
    pub(super) fn fail_all(&mut self, error: &JobError) {
        while let Some((_, member)) = self.members.pop_first() {
            let _ = member.link.ended.send(Err(error.for_each_job()));
        }
        (self.rows, self.bytes) = (0, 0);
    }
}
