//! The task that owns the replication connection of a job: it reads the stream, hands rows to the batcher, takes finished
//! rows back, and tells the server how far it may forget.
//!
//! Backpressure: with too much outstanding it stops reading, and the server stops sending; status updates go on all the
//! while, so that a slow embedder never trips `wal_sender_timeout`.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::failpoint;
use crate::postgres::{DatabaseError, Session};
use crate::replication::{Frame, Lsn, ReplicationStream};

use super::error::JobError;
use super::intake::Intake;
use super::row::{Origin, Row};

/// Rows and bytes of one job that may be on their way at a time.
pub const MOST_ROWS: usize = 4096;
pub const MOST_BYTES: usize = 32 << 20;

/// Status updates go out at least this often, also to a server that is patient.
pub const FEEDBACK: Duration = Duration::from_secs(10);
/// A position that only keepalives have moved is passed on at most this often: each answer makes a busy server send more.
const IDLE_FEEDBACK: Duration = Duration::from_secs(1);
/// A server that says nothing for this long, though it was asked, is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// How long rows under way may take to finish when the daemon stops.
const GRACE: Duration = Duration::from_secs(5);

/// How often the server wants to hear from us: it hangs up after `wal_sender_timeout`, however busy we are.
pub async fn feedback_interval(session: &Session) -> Result<Duration, JobError> {
    let row = session
        .query_one(
            "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout'",
            &[],
        )
        .await
        .map_err(DatabaseError::during("reading wal_sender_timeout"))?;
    let timeout = Duration::from_millis(row.get::<_, i64>(0).unsigned_abs());
    Ok(if timeout.is_zero() {
        FEEDBACK
    } else {
        FEEDBACK.min(timeout / 3)
    })
}

/// The position up to which the server has written its log.
pub async fn end_of_log(session: &Session) -> Result<Lsn, JobError> {
    let row = session
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .await
        .map_err(DatabaseError::during("reading the end of the log"))?;
    Ok(row.get::<_, &str>(0).parse().unwrap_or(Lsn::ZERO))
}

pub struct Capture {
    stream: ReplicationStream,
    intake: Intake,
    live: mpsc::Sender<Row>,
    finished: mpsc::Receiver<Row>,
    feedback: Duration,
    rows: usize,
    bytes: usize,
    sent: Lsn,
    /// Finished rows have moved the confirmed position since the last status update.
    news: bool,
    last_feedback: Instant,
    last_heard: Instant,
}

impl Capture {
    /// `live` and `finished` need room for [`MOST_ROWS`]. `feedback` is the longest time between two status updates.
    pub fn new(
        stream: ReplicationStream,
        intake: Intake,
        live: mpsc::Sender<Row>,
        finished: mpsc::Receiver<Row>,
        feedback: Duration,
    ) -> Self {
        let now = Instant::now();
        Capture {
            stream,
            intake,
            live,
            finished,
            feedback,
            rows: 0,
            bytes: 0,
            sent: Lsn::ZERO,
            news: false,
            last_feedback: now,
            last_heard: now,
        }
    }

    /// Streams until `stop`, then finishes and confirms what is under way.
    ///
    /// # Errors
    /// Whatever ends the attempt: the connection, the server, or a table that the job cannot work on any more.
    ///
    /// Cancellation: dropping the future closes the connection; what was not confirmed is sent again the next time.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), JobError> {
        let mut clock = interval(IDLE_FEEDBACK.min(self.feedback / 2));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut finished = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.finished.recv_many(&mut finished, MOST_ROWS) => {
                    self.take_back(count, &mut finished)?;
                    self.confirm().await?;
                }
                _ = clock.tick() => self.tick().await?,
                frame = self.stream.next(), if self.has_room() => {
                    self.take(frame?).await?;
                    while self.has_room() && let Some(frame) = self.stream.try_next()? {
                        self.take(frame).await?;
                    }
                    self.confirm().await?;
                }
            }
        }
        self.wind_down(finished).await
    }

    fn has_room(&self) -> bool {
        self.rows < MOST_ROWS && self.bytes < MOST_BYTES
    }

    async fn take(&mut self, frame: Frame) -> Result<(), JobError> {
        self.last_heard = Instant::now();
        match frame {
            Frame::XLogData { payload, .. } => {
                let before = self.intake.confirmed();
                let row = self.intake.take(&payload)?;
                self.news |= self.intake.confirmed() > before;
                if let Some(row) = row {
                    self.rows += 1;
                    self.bytes += row.bytes;
                    // There is room: no more rows are out than the channel holds.
                    self.live
                        .send(row)
                        .await
                        .map_err(|_| JobError::Transient("the batcher has stopped".into()))?;
                }
            }
            Frame::Keepalive {
                wal_end,
                reply_requested,
            } => {
                self.intake.keepalive(wal_end);
                if reply_requested {
                    self.send_status(false).await?;
                }
            }
        }
        Ok(())
    }

    fn take_back(&mut self, count: usize, finished: &mut Vec<Row>) -> Result<(), JobError> {
        if count == 0 {
            return Err(JobError::Transient("the batcher has stopped".into()));
        }
        let before = self.intake.confirmed();
        for row in finished.drain(..) {
            self.rows -= 1;
            self.bytes -= row.bytes;
            if let Origin::Live { ticket, .. } = row.origin {
                self.intake.finish(ticket);
            }
        }
        self.news |= self.intake.confirmed() > before;
        Ok(())
    }

    /// Passes on a position that written rows have moved, at once; one that only keepalives have moved waits for the clock.
    async fn confirm(&mut self) -> Result<(), JobError> {
        if self.news {
            self.send_status(false).await
        } else {
            Ok(())
        }
    }

    async fn tick(&mut self) -> Result<(), JobError> {
        if !self.has_room() {
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
            self.send_status(self.has_room()).await
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
        self.last_feedback = Instant::now();
        Ok(())
    }

    /// Takes nothing new in; waits for what is under way, confirms it and says goodbye.
    async fn wind_down(mut self, mut finished: Vec<Row>) -> Result<(), JobError> {
        let deadline = Instant::now() + GRACE;
        while self.rows > 0 {
            match tokio::time::timeout_at(
                deadline,
                self.finished.recv_many(&mut finished, MOST_ROWS),
            )
            .await
            {
                Ok(count) => self.take_back(count, &mut finished)?,
                Err(_) => {
                    tracing::info!(
                        "{} rows are still under way; they will be taken up at the next start",
                        self.rows
                    );
                    break;
                }
            }
        }
        self.send_status(false).await?;
        self.stream.finish().await?;
        Ok(())
    }
}
