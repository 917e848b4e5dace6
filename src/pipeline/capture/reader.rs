//! The loop over a stream: it owns the replication connection, hands rows to the subscribers, takes receipts back, and tells
//! the server how far it may discard WAL.
//!
//! Everything that it waits for stands in one `select!`, in the order of urgency. Whatever is waited for may be dropped at
//! any point: partial frames stay in the [`ReplicationStream`], not in a future.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::changes::ChangeFilter;
use super::feedback::Feedback;
use super::in_flight::MAX_LIVE_ROWS;
use super::join::{JOIN_WINDOW, JoinRequest, Joining, Request};
use super::open::OpenedStream;
use super::pace::Pace;
use super::subscribers::{Departure, Subscribers};
use super::table_changes::{Delivery, TableChanges};
use crate::failpoint;
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::table::row::{LiveAck, SubscriberId};
use crate::plural::form;
use crate::replication::pgoutput::RelationId;
use crate::replication::{Frame, Lsn, ReplicationStream};
use crate::status::lag::{StreamLag, Unfinished};
use crate::ticks;

/// A server that has sent nothing for this time, though it was asked for a reply, is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(35);

/// After this many bytes other events have their turn.
const MAX_BYTES_AT_ONCE: u64 = 128 << 10;

/// What reaches the reader besides the stream.
pub(super) struct Inputs {
    pub requests: mpsc::Receiver<Request>,
    /// Receipts of finished rows, of all subscribers.
    pub acks: mpsc::Receiver<LiveAck>,
    /// The members of a shared publication, as the server has them.
    pub members: watch::Receiver<MembershipSnapshot>,
}

/// Why a stream has ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// It has to restart from its confirmed position.
    Restart,
    /// The last subscriber has left.
    NoSubscribers,
}

/// A stream and its subscribers.
pub(super) struct Reader {
    stream: ReplicationStream,
    filter: ChangeFilter,
    pub(super) subscribers: Subscribers,
    feedback: Feedback,
    pace: Pace,
    /// What the last message meant, kept for its allocation.
    deliveries: Vec<Delivery>,
    last_received: Instant,
    /// How much had arrived at the last tick of the clock.
    received: u64,
    /// When the stream is to restart.
    restart_at: Option<Instant>,
    /// Told how old the oldest unfinished change is.
    lag: Arc<StreamLag>,
    unfinished: Option<Unfinished>,
}

impl Reader {
    /// A reader without subscribers.
    pub(super) fn new(opened: OpenedStream, lag: Arc<StreamLag>) -> Self {
        let mut subscribers = Subscribers::default();
        subscribers.restart(opened.members);
        Reader {
            stream: opened.stream,
            filter: ChangeFilter::new(opened.start, opened.wal_end),
            subscribers,
            feedback: Feedback::new(opened.feedback_interval),
            pace: Pace::new(),
            deliveries: Vec::new(),
            last_received: Instant::now(),
            received: 0,
            restart_at: None,
            lag,
            unfinished: None,
        }
    }

    /// Continues with a new connection and the same subscribers.
    pub(super) fn restart(&mut self, opened: OpenedStream) {
        self.subscribers.restart(opened.members);
        self.filter.restart(opened.start, opened.wal_end);
        self.stream = opened.stream;
        self.feedback = Feedback::new(opened.feedback_interval);
        self.pace = Pace::new();
        self.last_received = Instant::now();
        self.restart_at = None;
    }

    /// Adds a subscriber.
    pub(super) fn join(&mut self, joining: Joining) {
        let Joining {
            request,
            link,
            joined,
        } = joining;
        let JoinRequest {
            member,
            target,
            unbroken,
            since,
            ..
        } = request;
        let was_absent = self.subscribers.is_absent(&member);
        let table = RelationId(target.oid);
        let changes = TableChanges::new(target, since);
        let Some((id, missed)) = self.subscribers.join(member, table, changes, link) else {
            return;
        };
        // A member whose stream is unbroken must get everything from the confirmed position on. If it was absent, its
        // changes have been counted meanwhile; if it was unknown, they have passed uncounted.
        if missed || unbroken && !was_absent && self.feedback.has_begun() {
            self.schedule_restart();
        }
        let _ = joined.send(id);
    }

    /// Streams until there is no subscriber left, or the stream has to restart.
    ///
    /// Cancellation: dropping the future closes the connection. What was not confirmed is sent again the next time.
    ///
    /// # Errors
    /// Whatever ends the stream for all subscribers: the connection, the server.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) -> Result<StreamEnd, JobError> {
        let turn = self.stream.process_id().unsigned_abs();
        let mut clock = ticks::together(self.feedback.tick_interval(), turn);
        let mut acks = Vec::new();
        // The first status update tells the server that streaming has begun.
        self.send_status(false).await?;
        self.tell_lag();
        while !self.subscribers.is_empty() {
            let reads = self.subscribers.want_more() && self.pace.resumes_at.is_none();
            tokio::select! {
                biased;
                departure = self.subscribers.departure() => self.depart(departure).await?,
                _ = inputs.acks.recv_many(&mut acks, MAX_LIVE_ROWS) => self.settle(&mut acks).await?,
                Some(request) = inputs.requests.recv() => self.answer(request),
                Ok(()) = inputs.members.changed() => {
                    let snapshot = inputs.members.borrow_and_update().clone();
                    self.compare_members(&snapshot);
                }
                () = at(self.feedback.due) => self.send_status(false).await?,
                () = at(self.restart_at) => return self.end_for_restart().await,
                _ = clock.tick() => self.tick().await?,
                () = at(self.pace.resumes_at) => {
                    self.pace.resumes_at = None;
                    self.stream.resume();
                }
                frame = self.stream.next(), if reads => self.read(frame?).await?,
            }
        }
        Ok(StreamEnd::NoSubscribers)
    }

    async fn depart(&mut self, departure: Departure) -> Result<(), JobError> {
        match departure {
            Departure::Left(id) => {
                self.subscribers.leave(id, Ok(()));
                Ok(())
            }
            Departure::Stops(id) => {
                self.subscribers.stop(id);
                self.release_stopped().await
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Join(joining) => self.join(joining),
            Request::Admit(subscriber, since) => self.subscribers.admit(subscriber, since),
        }
    }

    /// Rows are finished: counts them, and confirms the position that they have moved.
    async fn settle(&mut self, acks: &mut Vec<LiveAck>) -> Result<(), JobError> {
        let before = self.filter.confirmed();
        for ack in acks.drain(..) {
            self.filter.finish(&ack, &mut self.subscribers);
        }
        self.feedback.note_progress(before, self.filter.confirmed());
        self.confirm().await?;
        self.release_stopped().await
    }

    /// Ends the subscriptions of stopping subscribers whose rows are finished.
    async fn release_stopped(&mut self) -> Result<(), JobError> {
        let stopped = self.subscribers.stopped();
        if stopped.is_empty() {
            return Ok(());
        }
        self.send_status(false).await?;
        for id in stopped {
            if self.subscribers.count() == 1 {
                // Ended before the last subscriber is told, so that its successor finds the slot free. The others need not
                // wait for it.
                self.stream.finish().await?;
            }
            let unfinished = self.subscribers.leave(id, Ok(()));
            if unfinished > 0 {
                tracing::info!(
                    "{unfinished} {} at the next start",
                    form(
                        unfinished,
                        "row is unfinished; the stream repeats it",
                        "rows are unfinished; the stream repeats them"
                    )
                );
            }
        }
        Ok(())
    }

    fn compare_members(&mut self, snapshot: &MembershipSnapshot) {
        if self.subscribers.retain_members(snapshot) {
            self.schedule_restart();
        }
    }

    /// Restarts the stream soon, with all who join until then.
    fn schedule_restart(&mut self) {
        self.restart_at
            .get_or_insert_with(|| Instant::now() + JOIN_WINDOW);
    }

    async fn end_for_restart(&mut self) -> Result<StreamEnd, JobError> {
        self.send_status(false).await?;
        if let Err(error) = self.stream.finish().await {
            // Then the new connection ends this one.
            tracing::debug!("the stream did not end in order: {error}");
        }
        Ok(StreamEnd::Restart)
    }

    /// Reads this frame and all that have arrived, as far as the others can wait for that.
    async fn read(&mut self, first: Frame) -> Result<(), JobError> {
        self.last_received = Instant::now();
        let received = self.stream.received();
        let mut bytes = self.read_frame(first).await?;
        loop {
            while self.subscribers.want_more()
                && let Some(frame) = self.stream.try_next()?
            {
                bytes += self.read_frame(frame).await?;
            }
            // Of a busy stream a read brings a part: only one that brings nothing tells that there is no more.
            if !self.subscribers.want_more()
                || self.stream.received() - received >= MAX_BYTES_AT_ONCE
                || !self.stream.read_arrived().await?
            {
                break;
            }
        }
        self.pace.count_read(bytes, self.last_received);
        if self.pace.resumes_at.is_some() {
            self.stream.rest();
        }
        self.confirm().await
    }

    /// Returns the size of the frame's payload.
    async fn read_frame(&mut self, frame: Frame) -> Result<usize, JobError> {
        match frame {
            Frame::XLogData { payload, .. } => {
                let before = self.filter.confirmed();
                let mut deliveries = std::mem::take(&mut self.deliveries);
                let read = self
                    .filter
                    .read(&payload, &mut self.subscribers, &mut deliveries);
                self.feedback.note_progress(before, self.filter.confirmed());
                for delivery in deliveries.drain(..) {
                    self.deliver(delivery).await;
                }
                self.deliveries = deliveries;
                read?;
                Ok(payload.len())
            }
            Frame::Keepalive {
                wal_end,
                reply_requested,
            } => {
                self.filter.keepalive(wal_end);
                match self.feedback.note_keepalive(wal_end) || reply_requested {
                    true => self.send_status(false).await?,
                    false => self.feedback.schedule(self.filter.confirmed()),
                }
                Ok(0)
            }
        }
    }

    async fn deliver(&mut self, (id, row): Delivery) {
        match row {
            Ok(row) => {
                if !self.subscribers.send(id, row).await {
                    self.dismiss(id, JobError::batcher_stopped());
                }
            }
            Err(error) => self.dismiss(id, error),
        }
    }

    fn dismiss(&mut self, id: SubscriberId, error: JobError) {
        self.subscribers.leave(id, Err(error));
    }

    fn tell_lag(&mut self) {
        let unfinished = Some(Unfinished {
            oldest_commit: self.filter.oldest_commit(),
        });
        if unfinished != self.unfinished {
            self.unfinished = unfinished;
            self.lag.set_unfinished(unfinished);
        }
    }

    /// Confirms a position that finished rows have moved, now or soon.
    async fn confirm(&mut self) -> Result<(), JobError> {
        self.tell_lag();
        match self.feedback.confirms_now() {
            true => self.send_status(false).await,
            false => Ok(()),
        }
    }

    async fn tick(&mut self) -> Result<(), JobError> {
        self.release_stopped().await?;
        let reads = self.subscribers.want_more();
        let received = std::mem::replace(&mut self.received, self.stream.received());
        if !reads || received != self.received {
            // Without reading nothing can arrive, and a long message arrives in parts.
            self.last_received = Instant::now();
        } else if self.last_received.elapsed() > SILENCE_TIMEOUT {
            return Err(JobError::Transient(format!(
                "the server has sent nothing for {} s; reconnecting",
                SILENCE_TIMEOUT.as_secs()
            )));
        }
        if self.feedback.end_second() || self.feedback.declined() > Lsn::ZERO {
            // Only the answer tells how far the server is.
            self.send_status(true).await
        } else if self.feedback.is_behind(self.filter.confirmed()) {
            self.send_status(false).await
        } else if self.feedback.is_overdue() {
            // Only a server that was asked for a reply can be missed.
            self.send_status(reads).await
        } else {
            Ok(())
        }
    }

    async fn send_status(&mut self, reply_requested: bool) -> Result<(), JobError> {
        let confirmed = self.filter.confirmed();
        let reply_requested = reply_requested || self.feedback.asks();
        failpoint::reach("status-before");
        self.stream.report_written(self.feedback.declined());
        self.stream.send_status(confirmed, reply_requested).await?;
        failpoint::reach("status-after");
        self.feedback.note_sent(confirmed, reply_requested);
        Ok(())
    }
}

impl Drop for Reader {
    /// Nothing is read from now on, so nothing is known of what is unfinished.
    fn drop(&mut self) {
        self.lag.set_unfinished(None);
    }
}

/// Pends until this moment; without one, forever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
