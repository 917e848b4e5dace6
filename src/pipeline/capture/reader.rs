//! The part of a feed that owns the replication connection: it reads the stream, hands rows to the members' batchers, takes
//! finished rows back, and tells the server how far it may forget.
//!
//! Backpressure: with too much outstanding it stops reading, and the server stops sending; status updates go on all the
//! while, so that a slow embedder never trips `wal_sender_timeout`.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::failpoint;
use crate::pipeline::capture::changes::{ChangeFilter, Delivery};
use crate::pipeline::capture::open as connect;
use crate::pipeline::capture::pace::Pace;
use crate::pipeline::capture::slot_reader::GATHERING;
use crate::pipeline::capture::slot_reader::Joining;
use crate::pipeline::capture::subscribers::{Departure, Subscribers};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::publication::members::MembershipSnapshot;
use crate::pipeline::table::row::{LiveAck, Row, SubscriberId};
use crate::replication::{Frame, Lsn, ReplicationStream};

/// Rows and bytes of one stream that may be on their way at a time.
pub const MOST_ROWS: usize = 4096;
pub const MOST_BYTES: usize = 32 << 20;

/// Status updates go out at least this often, also to a server that is patient.
pub(super) const FEEDBACK: Duration = Duration::from_secs(10);
/// Positions that written rows have moved are passed on at most this often: the server works for each.
const CONFIRMING: Duration = Duration::from_millis(10);
/// A position that only keepalives have moved is passed on at most this often: each answer makes a busy server send more.
const IDLE_FEEDBACK: Duration = Duration::from_secs(1);
/// A server that says nothing for this long, though it was asked, is gone.
const SILENCE: Duration = Duration::from_secs(35);

/// What the stream needs besides its connection.
pub(super) struct Inputs {
    /// Finished rows of all members.
    pub finished: mpsc::Receiver<LiveAck>,
    /// Those who want to become members.
    pub joins: mpsc::Receiver<Joining>,
    /// Who is a member, as the server has it.
    pub marks: watch::Receiver<MembershipSnapshot>,
}

/// Why a stream has ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It has to begin again from its confirmed position.
    Again,
    /// The last member has gone.
    Empty,
}

pub(super) struct Capture {
    stream: ReplicationStream,
    pub(super) intake: ChangeFilter,
    pub(super) seated: Subscribers,
    start: Lsn,
    feedback: Duration,
    deliveries: Vec<Delivery>,
    sent: Lsn,
    /// Finished rows have moved the confirmed position since the last status update.
    news: bool,
    /// When that is passed on.
    confirms: Option<Instant>,
    pace: Pace,
    last_feedback: Instant,
    last_heard: Instant,
    /// When the stream is to begin again.
    again: Option<Instant>,
}

impl Capture {
    /// A capture without members.
    pub(super) fn new(opened: connect::Opened) -> Self {
        let now = Instant::now();
        let mut intake = ChangeFilter::new(opened.start, opened.log_end);
        intake.restart(opened.start, opened.log_end, opened.members);
        Capture {
            stream: opened.stream,
            intake,
            seated: Subscribers::default(),
            start: opened.start,
            feedback: opened.feedback,
            deliveries: Vec::new(),
            sent: Lsn::ZERO,
            news: false,
            confirms: None,
            pace: Pace::new(),
            last_feedback: now,
            last_heard: now,
            again: None,
        }
    }

    /// Goes on with a new connection and the same members.
    pub(super) fn restart(&mut self, opened: connect::Opened) {
        let now = Instant::now();
        self.intake
            .restart(opened.start, opened.log_end, opened.members);
        self.stream = opened.stream;
        (self.start, self.feedback) = (opened.start, opened.feedback);
        (self.sent, self.news, self.again) = (Lsn::ZERO, false, None);
        (self.confirms, self.pace) = (None, Pace::new());
        (self.last_feedback, self.last_heard) = (now, now);
    }

    /// Takes a member in.
    pub(super) fn join(&mut self, joining: Joining) {
        let Joining {
            member,
            link,
            begun,
        } = joining;
        let known = self.intake.is_away(&link.id);
        let id = link.id.clone();
        let seat = self.seated.add(link);
        match self.intake.seat(seat, id, member.target, member.since) {
            Ok(missed) => {
                // One whose stream is unbroken must get everything from the confirmed position on.
                if missed || member.intact && !known && self.has_begun() {
                    self.begin_again();
                }
                let _ = begun.send(self.start);
            }
            Err(error) => self.dismiss(seat, Err(error)),
        }
    }

    fn has_begun(&self) -> bool {
        self.sent > Lsn::ZERO
    }

    /// Has the stream begin again soon, with all who join until then.
    fn begin_again(&mut self) {
        self.again.get_or_insert_with(|| Instant::now() + GATHERING);
    }

    /// Streams until there is nobody left to stream for, or the stream has to begin again.
    ///
    /// # Errors
    /// Whatever ends the stream for all members: the connection, the server.
    ///
    /// Cancellation: dropping the future closes the connection; what was not confirmed is sent again the next time.
    pub(super) async fn run(&mut self, inputs: &mut Inputs) -> Result<Ended, JobError> {
        let mut clock = interval(IDLE_FEEDBACK.min(self.feedback / 2));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finished = Vec::new();
        // The first status update says that streaming has begun.
        self.send_status(false).await?;
        loop {
            if self.seated.is_empty() {
                return Ok(Ended::Empty);
            }
            tokio::select! {
                biased;
                departure = self.seated.departure() => match departure {
                    Departure::Gone(seat) => self.dismiss(seat, Ok(())),
                    // What comes from now on waits for its return.
                    Departure::Stops(seat) => {
                        self.intake.leave(seat, false);
                        self.let_stop().await?;
                    }
                },
                _ = inputs.finished.recv_many(&mut finished, MOST_ROWS) => {
                    self.take_back(&mut finished);
                    self.confirm().await?;
                    self.let_stop().await?;
                }
                Some(joining) = inputs.joins.recv() => self.join(joining),
                Ok(()) = inputs.marks.changed() => {
                    let marks = inputs.marks.borrow_and_update().clone();
                    if self.intake.retain(marks.looked, |id| marks.contains(id)) {
                        self.begin_again();
                    }
                }
                () = at(self.confirms) => self.send_status(false).await?,
                () = at(self.again) => {
                    self.send_status(false).await?;
                    if let Err(error) = self.stream.finish().await {
                        // Then the new connection ends this one.
                        tracing::debug!("the stream did not end in order: {error}");
                    }
                    return Ok(Ended::Again);
                }
                _ = clock.tick() => {
                    self.let_stop().await?;
                    self.tick().await?;
                }
                () = at(self.pace.resumes) => {
                    self.pace.resumes = None;
                    self.stream.resume();
                }
                frame = self.stream.next(), if self.reads() && self.pace.resumes.is_none() => {
                    let mut bytes = self.take(frame?).await?;
                    while self.reads() && let Some(frame) = self.stream.try_next()? {
                        bytes += self.take(frame).await?;
                    }
                    self.pace.read(bytes, self.last_heard);
                    if self.pace.resumes.is_some() {
                        self.stream.rest();
                    }
                    self.confirm().await?;
                }
            }
        }
    }

    /// Lets members go that have finished.
    async fn let_stop(&mut self) -> Result<(), JobError> {
        let ready = self.seated.ready_to_stop();
        if ready.is_empty() {
            return Ok(());
        }
        self.send_status(false).await?;
        for seat in ready {
            if let Some((link, unfinished)) = self.seated.remove(seat) {
                if unfinished > 0 {
                    tracing::info!(
                        "{unfinished} rows are still under way; they will be taken up at the next start"
                    );
                }
                if unfinished > 0 {
                    self.intake.miss(&link.id);
                }
                if self.seated.is_empty() {
                    // Whoever starts next finds the slot free.
                    self.stream.finish().await?;
                }
                let _ = link.ended.send(Ok(()));
            }
        }
        Ok(())
    }

    /// Lets a member go at once.
    fn dismiss(&mut self, seat: SubscriberId, ended: Result<(), JobError>) {
        if let Some((link, unfinished)) = self.seated.remove(seat) {
            let unfinished = unfinished > 0 || ended.is_err();
            self.intake.leave(seat, unfinished);
            if unfinished {
                self.intake.miss(&link.id);
            }
            let _ = link.ended.send(ended);
        }
    }

    fn reads(&self) -> bool {
        self.has_room() && self.seated.wants_more()
    }

    fn has_room(&self) -> bool {
        self.seated.rows() < MOST_ROWS && self.seated.bytes() < MOST_BYTES
    }

    /// Returns the bytes of its payload.
    async fn take(&mut self, frame: Frame) -> Result<usize, JobError> {
        self.last_heard = Instant::now();
        match frame {
            Frame::XLogData { payload, .. } => {
                let before = self.intake.confirmed();
                let mut deliveries = std::mem::take(&mut self.deliveries);
                let taken = self.intake.take(&payload, &mut deliveries);
                self.news |= self.intake.confirmed() > before;
                for (seat, row) in deliveries.drain(..) {
                    self.deliver(seat, row).await;
                }
                self.deliveries = deliveries;
                taken?;
                Ok(payload.len())
            }
            Frame::Keepalive {
                wal_end,
                reply_requested,
            } => {
                self.intake.keepalive(wal_end);
                if reply_requested {
                    self.send_status(false).await?;
                }
                Ok(0)
            }
        }
    }

    async fn deliver(&mut self, seat: SubscriberId, row: Result<Row, JobError>) {
        match row {
            Ok(row) => {
                if !self.seated.send(seat, row).await {
                    let stopped = JobError::Transient("the batcher has stopped".into());
                    self.dismiss(seat, Err(stopped));
                }
            }
            Err(error) => self.dismiss(seat, Err(error)),
        }
    }

    fn take_back(&mut self, finished: &mut Vec<LiveAck>) {
        let before = self.intake.confirmed();
        for ack in finished.drain(..) {
            self.seated.take_back(&ack);
            self.intake.finish(ack.ticket);
        }
        self.news |= self.intake.confirmed() > before;
    }

    /// Passes on a position that written rows have moved, at once or soon; one that only keepalives have moved waits for the
    /// clock.
    async fn confirm(&mut self) -> Result<(), JobError> {
        if !self.news || self.confirms.is_some() {
            return Ok(());
        }
        if self.last_feedback.elapsed() >= CONFIRMING {
            return self.send_status(false).await;
        }
        self.confirms = Some(self.last_feedback + CONFIRMING);
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), JobError> {
        if !self.reads() {
            // Nobody listens, so nothing can be heard.
            self.last_heard = Instant::now();
        } else if self.last_heard.elapsed() > SILENCE {
            return Err(JobError::Transient(format!(
                "the server has said nothing for {} s; connecting again",
                SILENCE.as_secs()
            )));
        }
        if self.intake.confirmed() > self.sent {
            self.send_status(false).await
        } else if self.last_feedback.elapsed() >= self.feedback {
            // Asking for an answer is what makes silence mean something.
            self.send_status(self.reads()).await
        } else {
            Ok(())
        }
    }

    async fn send_status(&mut self, reply_requested: bool) -> Result<(), JobError> {
        let confirmed = self.intake.confirmed();
        failpoint::reach("status-before");
        self.stream.send_status(confirmed, reply_requested).await?;
        failpoint::reach("status-after");
        self.sent = confirmed;
        self.news = false;
        self.confirms = None;
        self.last_feedback = Instant::now();
        Ok(())
    }
}

/// Pends for ever without a moment.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
