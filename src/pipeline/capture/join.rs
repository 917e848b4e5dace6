//! What passes between a job and its slot reader: a request to join, the subscription's two ends, and its end.
//!
//! ```text
//! job                                   slot reader
//!  │ JoinRequest ───────────────────────▶ │   stream opened, tables known
//!  │ ◀──────────────────── SubscriberEnds │
//!  │ ◀────────────────────────────── rows │
//!  │ LiveAck ───────────────────────────▶ │   counted in the LSN tracker
//!  │ Admission::grant(lsn) ─────────────▶ │   once the table is published for the job
//!  │ ◀──────────────── ended: Ok or error │
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pipeline::error::JobError;
use crate::pipeline::slot::names::MemberId;
use crate::pipeline::table::row::{LiveAck, Row, SubscriberId};
use crate::pipeline::table::target::TargetTable;
use crate::replication::Lsn;

/// Subscribers that come within this time share one start of the stream: each start repeats what is not confirmed.
pub(super) const JOIN_WINDOW: Duration = Duration::from_millis(300);

/// A job asks for the changes of its table.
pub struct JoinRequest {
    /// The job and its definition.
    pub member: MemberId,
    /// The table whose changes it wants.
    pub target: Arc<TargetTable>,
    /// The publication has omitted no change for it since the slot's confirmed position, so it must get every change from
    /// there on.
    pub unbroken: bool,
    /// Transactions that committed before do not concern it; `None` until the table is published for it
    /// ([`Admission::grant`]).
    pub since: Option<Lsn>,
    /// Canceled when the job wants its rows in flight finished, and no more.
    pub stop: CancellationToken,
}

/// A job's ends of its subscription. Dropped, it ends the subscription at once; what was not finished is sent again when the
/// job subscribes the next time.
pub struct SubscriberEnds {
    /// The rows that need work. Holds as many as may be in flight.
    pub rows: mpsc::Receiver<Row>,
    /// Where the receipt of each finished row goes.
    pub acks: mpsc::Sender<LiveAck>,
    /// Says from which position on the job's table is published for it.
    pub admission: Admission,
    /// Lasts as long as the subscription.
    pub stay: Stay,
}

/// Tells the slot reader that a subscriber's table is in the publication.
#[derive(Clone)]
pub struct Admission {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) subscriber: SubscriberId,
}

impl Admission {
    /// Every change of the table that committed at `since` or later comes through the stream; earlier ones do not concern the
    /// subscriber.
    ///
    /// Cancellation safe. Has no effect once the slot reader has ended.
    pub async fn grant(&self, since: Lsn) {
        let granted = Request::Admit(self.subscriber, since);
        let _ = self.requests.send(granted).await;
    }
}

/// The subscription itself. It lasts until this is dropped.
pub struct Stay {
    pub(super) ended: oneshot::Receiver<Result<(), JobError>>,
    pub(super) _present: DropGuard,
}

impl Stay {
    /// Waits for the end of the subscription. `Ok` after the stop that the job asked for.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// Whatever ended the subscription otherwise.
    pub async fn ended(&mut self) -> Result<(), JobError> {
        let ended = (&mut self.ended).await;
        ended.unwrap_or_else(|_| Err(reader_ended()))
    }
}

/// What a slot reader is asked for while it runs.
pub(super) enum Request {
    Join(Joining),
    /// The subscriber's table is published for it from this position on.
    Admit(SubscriberId, Lsn),
}

/// A request to join, with the reader's ends of the subscription.
pub(super) struct Joining {
    pub request: JoinRequest,
    pub link: Link,
    /// Told when the stream has been opened.
    pub joined: oneshot::Sender<SubscriberId>,
}

/// The reader's end of a subscription.
pub(super) struct Link {
    pub rows: mpsc::Sender<Row>,
    /// Told once how the subscription ended.
    pub ended: oneshot::Sender<Result<(), JobError>>,
    /// The job wants its rows in flight finished, and no more.
    pub stop: CancellationToken,
    /// The job has dropped its [`SubscriberEnds`].
    pub left: CancellationToken,
}

/// The slot reader ended without a word, as by a panic.
pub(super) fn reader_ended() -> JobError {
    JobError::Transient("the slot reader has ended".into())
}
