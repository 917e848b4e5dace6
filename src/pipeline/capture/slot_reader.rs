//! A slot, who reads it, and for whom.
//!
//! ```text
//!             ┌──────────────── feed ────────────────┐        ┌────── member: a job ──────┐
//! walsender ──▶ connect ─▶ capture ─▶ intake ─▶ seat ─┼─ rows ─▶ batcher ─▶ writer ─▶ table │
//!     ▲      │              │  ▲                      │        └────────────┬──────────────┘
//!     └──────┼── status ◀───┘  └──── finished rows ◀──┼─────────────────────┘
//!            └────────────────────────────────────────┘
//! ```
//!
//! A feed is a task that owns one replication connection. It has one member where each job has a slot of its own, and as many
//! as the database has jobs where they share one (`--slots database`, see [`ReaderRegistry`]). Members come and go while it streams;
//! it ends with the last of them, or with the first error of its connection, of which each member is told. Whoever is a
//! member, and away for a moment, loses nothing: see [`changes`](super::changes).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::pipeline::error::JobError;
use crate::pipeline::table::row::{LiveAck, Row};
use crate::pipeline::table::target::TargetTable;
use crate::replication::Lsn;

use crate::pipeline::capture::open::{Sharing, SlotSource};
use crate::pipeline::capture::reader::{self as capture, MOST_ROWS};
use crate::pipeline::capture::{lifecycle as run, subscribers as seated};
use crate::pipeline::setup::publication::members as marks;
use crate::pipeline::slot::names::MemberId;

/// Those who come within this time begin together: each beginning of a shared stream repeats what is not confirmed.
pub(super) const GATHERING: Duration = Duration::from_millis(300);

/// Who wants to be served.
pub struct Member {
    pub id: MemberId,
    pub target: Arc<TargetTable>,
    /// Nothing was left out for it since the slot's confirmed position, so it must get everything from there on.
    pub intact: bool,
    /// Transactions that were committed before do not concern it. Not known yet while it is being taken in: until then, what
    /// does not carry what it needs was committed before.
    pub since: Arc<OnceLock<Lsn>>,
    /// Finish what is under way, and no more.
    pub stop: CancellationToken,
}

/// A member's end of its connection with a feed. Dropped, it ends the membership at once; what was not finished comes again when
/// the member is back.
pub struct Membership {
    pub live: mpsc::Receiver<Row>,
    /// Where every row goes that is finished.
    pub finished: mpsc::Sender<LiveAck>,
    /// Where the stream began.
    pub start: Lsn,
    pub stay: Stay,
}

/// The membership itself, which lasts for as long as this is kept.
pub struct Stay {
    ended: oneshot::Receiver<Result<(), JobError>>,
    _here: DropGuard,
}

impl Stay {
    /// Waits for the end. Cancellation safe.
    ///
    /// # Errors
    /// Whatever ended the membership, but for a `stop` that was asked for.
    pub async fn ended(&mut self) -> Result<(), JobError> {
        let ended = (&mut self.ended).await;
        ended.unwrap_or_else(|_| Err(over()))
    }
}

/// A member on its way in.
pub(super) struct Joining {
    pub member: Member,
    pub link: seated::Link,
    pub begun: oneshot::Sender<Lsn>,
}

/// A running feed. It goes on without this handle for as long as it has members.
#[derive(Clone)]
pub struct SlotReader {
    joins: mpsc::Sender<Joining>,
    finished: mpsc::Sender<LiveAck>,
    /// Ends it, with an error for all members.
    pub(super) end: CancellationToken,
}

impl SlotReader {
    /// Starts a feed, which waits for its first member.
    pub fn start(source: SlotSource) -> SlotReader {
        use tracing::Instrument;
        let (joins_in, joins) = mpsc::channel(16);
        let (finished_in, finished) = mpsc::channel(MOST_ROWS);
        let (marks_in, marks) = watch::channel(marks::MembershipSnapshot::empty());
        let end = CancellationToken::new();
        let feed = SlotReader {
            joins: joins_in,
            finished: finished_in.clone(),
            end: end.clone(),
        };
        let span = match source.sharing {
            Sharing::Own => tracing::Span::current(),
            Sharing::Shared(_) => tracing::info_span!(parent: None, "feed", slot = %source.slot),
        };
        let inputs = capture::Inputs {
            finished,
            joins,
            marks,
        };
        let running = run::run(source, inputs, marks_in, end);
        let running = async move {
            running.await;
            // Until here, so that the channel does not close between two members.
            drop(finished_in);
        };
        tokio::spawn(running.instrument(span));
        feed
    }

    /// Becomes a member; returns when the stream has begun.
    ///
    /// # Errors
    /// Whatever kept the stream from beginning, or this member from being served.
    ///
    /// Cancellation: a dropped future is no member.
    pub async fn join(&self, member: Member) -> Result<Membership, JobError> {
        let (live_in, live) = mpsc::channel(MOST_ROWS);
        let (ended_in, ended) = oneshot::channel();
        let (begun_in, begun) = oneshot::channel();
        let gone = CancellationToken::new();
        let link = seated::Link {
            id: member.id.clone(),
            live: live_in,
            ended: ended_in,
            stop: member.stop.clone(),
            gone: gone.clone(),
        };
        let mut membership = Membership {
            live,
            finished: self.finished.clone(),
            start: Lsn::ZERO,
            stay: Stay {
                ended,
                _here: gone.drop_guard(),
            },
        };
        let joining = Joining {
            member,
            link,
            begun: begun_in,
        };
        self.joins.send(joining).await.map_err(|_| over())?;
        match begun.await {
            Ok(start) => {
                membership.start = start;
                Ok(membership)
            }
            Err(_) => Err(membership.stay.ended().await.err().unwrap_or_else(over)),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.joins.is_closed()
    }
}

fn over() -> JobError {
    JobError::Transient("the stream has ended".into())
}
