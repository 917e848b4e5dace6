//! The handle of a slot reader: it starts the task and joins subscribers to it.

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::in_flight::MAX_LIVE_ROWS;
use super::join::{
    Admission, JoinRequest, Joining, Link, Request, Stay, SubscriberEnds, reader_ended,
};
use super::lifecycle;
use super::open::{Sharing, SlotSource};
use super::reader::Inputs;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::table::row::LiveAck;

/// Requests that may wait for the reader's attention.
const MAX_REQUESTS: usize = 16;

/// A running slot reader. It goes on without this handle as long as it has subscribers.
#[derive(Clone)]
pub struct SlotReader {
    requests: mpsc::Sender<Request>,
    acks: mpsc::Sender<LiveAck>,
    end: CancellationToken,
}

impl SlotReader {
    /// Starts the task, which waits for its first subscriber.
    pub fn start(source: SlotSource) -> SlotReader {
        let (requests, incoming_requests) = mpsc::channel(MAX_REQUESTS);
        let (acks, incoming_acks) = mpsc::channel(MAX_LIVE_ROWS);
        let (snapshots, members) = watch::channel(MembershipSnapshot::empty());
        let end = CancellationToken::new();
        let inputs = Inputs {
            requests: incoming_requests,
            acks: incoming_acks,
            members,
        };
        // A slot of one job logs as that job; a shared one belongs to none of its jobs.
        let span = match source.sharing {
            Sharing::Own => tracing::Span::current(),
            Sharing::Shared(_) => tracing::info_span!(parent: None, "slot", slot = %source.slot),
        };
        let reader = SlotReader {
            requests,
            acks: acks.clone(),
            end: end.clone(),
        };
        let running = async move {
            Box::pin(lifecycle::run(source, inputs, snapshots, end)).await;
            // Held until here, so that the channel stays open between two subscribers.
            drop(acks);
        };
        tokio::spawn(running.instrument(span));
        reader
    }

    /// Subscribes; returns when the stream has been opened.
    ///
    /// Cancellation: a dropped future does not subscribe.
    ///
    /// # Errors
    /// Whatever prevented the stream from opening, or this job from being served.
    pub async fn join(&self, request: JoinRequest) -> Result<SubscriberEnds, JobError> {
        let (row_sender, rows) = mpsc::channel(MAX_LIVE_ROWS);
        let (ended_sender, ended) = oneshot::channel();
        let (joined_sender, joined) = oneshot::channel();
        let left = CancellationToken::new();
        let link = Link {
            rows: row_sender,
            ended: ended_sender,
            stop: request.stop.clone(),
            left: left.clone(),
        };
        let mut stay = Stay {
            ended,
            _present: left.drop_guard(),
        };
        let joining = Request::Join(Joining {
            request,
            link,
            joined: joined_sender,
        });
        self.requests
            .send(joining)
            .await
            .map_err(|_| reader_ended())?;
        let Ok(subscriber) = joined.await else {
            return Err(stay.ended().await.err().unwrap_or_else(reader_ended));
        };
        Ok(SubscriberEnds {
            rows,
            acks: self.acks.clone(),
            admission: Admission {
                requests: self.requests.clone(),
                subscriber,
            },
            stay,
        })
    }

    /// Ends the task, with a transient error for all subscribers.
    pub(super) fn cancel(&self) {
        self.end.cancel();
    }

    /// Whether the task has ended, or takes no more subscribers.
    pub(super) fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }
}
