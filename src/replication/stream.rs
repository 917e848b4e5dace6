//! The stream of changes: frames in, standby status updates out, over one CopyBoth.
//!
//! ```text
//! CopyData: d length ┬ w start end time payload          XLogData                    server ──▶ client
//!                    ├ k end time reply                  Primary keepalive message   server ──▶ client
//!                    └ r written flushed applied time …  Standby status update       client ──▶ server
//! ```
//!
//! PostgreSQL manual, "Streaming Replication Protocol". The server side is `walsender.c`.

use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::error::ReplicationError;
use super::lsn::Lsn;
use super::pgoutput::{self, Timestamp};
use super::transport::Transport;
use super::wire::{Wire, log_notice, message_length};

/// How long [`ReplicationStream::finish`] waits for the server to stop.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of tag and length, before every message.
const HEADER_SIZE: usize = 5;
/// Kind, start, end and time, before the payload of XLogData.
const XLOG_DATA_HEADER_SIZE: usize = 1 + 8 + 8 + 8;
/// The content of a logical message that is longer than this many bytes is discarded as it arrives.
const MAX_MESSAGE_CONTENT: usize = 64 * 1024;
/// Bytes in which the head of a message is looked for: more than the longest prefix that is of use.
const MAX_HEAD: usize = 4 * 1024;

/// Kind, end, time and whether to reply.
const KEEPALIVE_SIZE: usize = 1 + 8 + 8 + 1;

/// One message of a walsender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message of the output plugin.
    XLogData {
        /// The position of the change in the WAL; 0/0 for messages that have none, such as Relation.
        wal_start: Lsn,
        /// How far the server had sent.
        wal_end: Lsn,
        /// The input of [`pgoutput::decode`](super::pgoutput::decode). Of a logical message longer than 64 KiB it has no
        /// content: any application may write messages of any size, and they come through every stream. Shares the
        /// buffer of its read, up to 128 KiB, which lives until the last payload in it is dropped: copy what you keep.
        payload: Bytes,
    },
    /// The server is alive.
    Keepalive {
        /// How far the server had sent.
        wal_end: Lsn,
        /// Whether the server asks for a status update at once: half of `wal_sender_timeout` has passed without one.
        reply_requested: bool,
    },
}

/// A standby status update that waits to be sent.
#[derive(Debug, Clone, Copy)]
struct Status {
    written: Lsn,
    flushed: Lsn,
    reply_requested: bool,
}

/// A walsender's stream. One task owns it: it reads changes, and confirms the position up to which they are processed.
///
/// All state is in here and none in the futures of its methods, so each of them may be dropped at any point, as by
/// `select!`.
pub struct ReplicationStream {
    wire: Wire,
    process_id: i32,
    /// What the next status reports as written, if that is more than it reports as flushed.
    written: Lsn,
    /// The latest status that is not yet in the wire's output.
    pending_status: Option<Status>,
    /// Bytes of a message that are yet to arrive and to be discarded.
    to_discard: usize,
    /// All bytes that have arrived, discarded ones included.
    received: u64,
    /// Whether CopyDone was sent.
    ending: bool,
}

impl ReplicationStream {
    pub(super) fn new(wire: Wire, process_id: i32) -> ReplicationStream {
        ReplicationStream {
            wire,
            process_id,
            written: Lsn::ZERO,
            pending_status: None,
            to_discard: 0,
            received: 0,
            ending: false,
        }
    }

    /// A stream over a transport that is in CopyBoth already, for tests without a server.
    pub fn over(
        transport: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> ReplicationStream {
        ReplicationStream::new(Wire::new(Transport::over(transport)), 0)
    }

    /// The server process: the slot's `active_pid`.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Waits for the next frame, and meanwhile sends what [`send_status`](Self::send_status) could not.
    ///
    /// Cancellation safe: no frame is lost, and part of a frame stays for the next call.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] with the server's last message, [`ReplicationError::Closed`] if it ended the
    /// stream. The stream is then over.
    pub async fn next(&mut self) -> Result<Frame, ReplicationError> {
        loop {
            if let Some(frame) = self.try_next()? {
                return Ok(frame);
            }
            self.queue_status();
            let before = self.wire.incoming.len();
            self.wire.fill().await?;
            self.received += (self.wire.incoming.len() - before) as u64;
        }
    }

    /// How many bytes have arrived so far. Grows while a long message is on its way.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next frame, if it has arrived already. One read may bring hundreds: a loop can take them all without
    /// waiting.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Result<Option<Frame>, ReplicationError> {
        loop {
            let incoming = &mut self.wire.incoming;
            let discarded = self.to_discard.min(incoming.len());
            incoming.advance(discarded);
            self.to_discard -= discarded;
            if self.to_discard > 0 {
                return Ok(None);
            }
            let Some(length) = message_length(incoming)? else {
                return Ok(None);
            };
            if let Some((frame, head)) = long_message(incoming, length) {
                incoming.advance(head);
                self.to_discard = length - head;
                return Ok(Some(frame));
            }
            if length > incoming.len() {
                return Ok(None);
            }
            if incoming[0] == backend::COPY_DATA_TAG {
                let frame = take_frame(incoming, length)?;
                self.wire.release(length);
                return Ok(Some(frame));
            }
            skip_or_end(incoming, self.ending)?;
        }
    }

    /// Takes in what has arrived and was not read yet, without waiting, for [`try_next`](Self::try_next). False if there is
    /// nothing.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn read_arrived(&mut self) -> Result<bool, ReplicationError> {
        let before = self.wire.incoming.len();
        let has_read = self.wire.fill_with_arrived().await?;
        self.received += (self.wire.incoming.len() - before) as u64;
        Ok(has_read)
    }

    /// Tells the kernel not to wake the runtime for small amounts of data: the caller reads later. Until
    /// [`resume`](Self::resume), [`next`](Self::next) may wait although there is data.
    pub fn rest(&mut self) {
        self.wire.transport.rest();
    }

    /// Ends the effect of [`rest`](Self::rest): from now on the first byte wakes the reader.
    pub fn resume(&mut self) {
        self.wire.transport.resume();
    }

    /// From now on reports at least this position as written: then the server sends no keepalives that were not asked for,
    /// until it has sent everything up to this position.
    ///
    /// A walsender that has caught up sends one before it waits, each time, where the reader has reported neither as
    /// written nor as flushed all that it has sent (`WalSndWaitForWal` in walsender.c). Beside many small transactions
    /// that are thousands a second. Of a logical reader the server uses what is written for nothing else but
    /// `pg_stat_replication`, and for `synchronous_commit = remote_write` where the reader counts as a standby.
    pub fn report_written(&mut self, written: Lsn) {
        self.written = written;
    }

    /// Confirms `flushed` as written, flushed and applied: the server may remove the WAL before it, and never sends
    /// changes of transactions that ended before it again.
    ///
    /// Cancellation safe: an unsent status stays here and goes out with the next [`next`](Self::next), `send_status` or
    /// [`finish`](Self::finish). If several wait, only the latest is sent.
    ///
    /// # Errors
    /// [`ReplicationError::Io`] if the connection is broken.
    pub async fn send_status(
        &mut self,
        flushed: Lsn,
        reply_requested: bool,
    ) -> Result<(), ReplicationError> {
        let was_requested = self
            .pending_status
            .is_some_and(|waiting| waiting.reply_requested);
        self.pending_status = Some(Status {
            written: self.written.max(flushed),
            flushed,
            reply_requested: reply_requested || was_requested,
        });
        self.flush_status().await
    }

    async fn flush_status(&mut self) -> Result<(), ReplicationError> {
        self.wire.flush().await?;
        self.queue_status();
        self.wire.flush().await
    }

    /// Encodes the waiting status if the previous one is sent. So at most one is in the output and one waits, however
    /// slow the server is.
    fn queue_status(&mut self) {
        if self.wire.outgoing.is_empty()
            && let Some(status) = self.pending_status.take()
        {
            write_status(status, &mut self.wire.outgoing);
        }
    }

    /// Ends the stream in good order, after any status update that waits. Afterwards the slot is free. Takes at most 5 s;
    /// do not use the stream afterwards.
    ///
    /// The server answers when it has sent the current transaction to its end. For a large one that may take longer
    /// than the limit. Dropping the stream then closes the connection.
    ///
    /// Cancellation: a dropped future leaves a stream that can only be dropped.
    ///
    /// # Errors
    /// [`ReplicationError::Timeout`], or that the connection broke. There is nothing to do about either.
    pub async fn finish(&mut self) -> Result<(), ReplicationError> {
        let late = |_| ReplicationError::Timeout {
            what: "ending the stream".to_owned(),
            limit: FINISH_TIMEOUT,
        };
        timeout(FINISH_TIMEOUT, self.end()).await.map_err(late)?
    }

    async fn end(&mut self) -> Result<(), ReplicationError> {
        self.resume();
        self.flush_status().await?;
        frontend::copy_done(&mut self.wire.outgoing);
        self.ending = true;
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(ReplicationError::Closed) => break,
                Err(error) => return Err(error),
            }
        }
        frontend::terminate(&mut self.wire.outgoing);
        self.wire.flush().await?;
        self.wire.shut_down().await
    }
}

/// The frame of a long logical message whose head is at the start of `incoming`, without the message's content, and the
/// length of that head. `length` is that of the CopyData.
fn long_message(incoming: &[u8], length: usize) -> Option<(Frame, usize)> {
    if length < MAX_MESSAGE_CONTENT || incoming[0] != backend::COPY_DATA_TAG {
        return None;
    }
    let mut header = incoming.get(HEADER_SIZE..HEADER_SIZE + XLOG_DATA_HEADER_SIZE)?;
    if header.get_u8() != b'w' {
        return None;
    }
    let (wal_start, wal_end) = (Lsn(header.get_u64()), Lsn(header.get_u64()));
    let start = HEADER_SIZE + XLOG_DATA_HEADER_SIZE;
    let message = incoming.get(start..)?;
    let message = &message[..message.len().min(MAX_HEAD)];
    let head = pgoutput::head_of_logical_message(message)?;
    let mut payload = BytesMut::with_capacity(head.len() + 4);
    payload.extend_from_slice(head);
    payload.put_u32(0);
    let head = start + head.len() + 4;
    (head <= incoming.len() && head <= length).then(|| {
        let frame = Frame::XLogData {
            wal_start,
            wal_end,
            payload: payload.freeze(),
        };
        (frame, head)
    })
}

/// Splits the CopyData of `length` bytes off the front of `incoming`.
fn take_frame(incoming: &mut BytesMut, length: usize) -> Result<Frame, ReplicationError> {
    let body = &incoming[HEADER_SIZE..length];
    match body.first() {
        Some(b'w') if body.len() >= XLOG_DATA_HEADER_SIZE => {
            let mut header = &body[1..XLOG_DATA_HEADER_SIZE];
            let (wal_start, wal_end) = (Lsn(header.get_u64()), Lsn(header.get_u64()));
            incoming.advance(HEADER_SIZE + XLOG_DATA_HEADER_SIZE);
            let payload = incoming
                .split_to(length - HEADER_SIZE - XLOG_DATA_HEADER_SIZE)
                .freeze();
            Ok(Frame::XLogData {
                wal_start,
                wal_end,
                payload,
            })
        }
        Some(b'k') if body.len() == KEEPALIVE_SIZE => {
            let wal_end = Lsn((&body[1..]).get_u64());
            let reply_requested = body[KEEPALIVE_SIZE - 1] != 0;
            incoming.advance(length);
            Ok(Frame::Keepalive {
                wal_end,
                reply_requested,
            })
        }
        kind => Err(ReplicationError::Protocol(format!(
            "a replication message of {} bytes and kind {kind:?}",
            body.len()
        ))),
    }
}

/// Takes the complete message at the start of `incoming`, which is not a CopyData: either it can be skipped, or it ends
/// the stream.
///
/// The server answers CopyDone with CopyDone while it still holds the slot, and completes the command after it has
/// released it (`StartLogicalReplication` in its walsender.c). So where we are `ending`, CopyDone is not the end.
fn skip_or_end(incoming: &mut BytesMut, ending: bool) -> Result<(), ReplicationError> {
    use backend::Message;
    match Message::parse(incoming).map_err(ReplicationError::protocol)? {
        Some(Message::NoticeResponse(notice)) => log_notice(notice.fields()),
        Some(Message::ParameterStatus(_)) => {}
        Some(Message::CopyDone) if ending => {}
        Some(Message::ErrorResponse(error)) => {
            return Err(ReplicationError::server(error.fields()));
        }
        Some(Message::CopyDone | Message::CommandComplete(_) | Message::ReadyForQuery(_)) => {
            return Err(ReplicationError::Closed);
        }
        _ => {
            return Err(ReplicationError::protocol(
                "an unknown message in the stream",
            ));
        }
    }
    Ok(())
}

/// Encodes a standby status update, as CopyData.
fn write_status(status: Status, out: &mut BytesMut) {
    const SIZE: u32 = 4 + 1 + 4 * 8 + 1;
    out.put_u8(backend::COPY_DATA_TAG);
    out.put_u32(SIZE);
    out.put_u8(b'r');
    out.put_u64(status.written.0);
    out.put_u64(status.flushed.0);
    out.put_u64(status.flushed.0); // applied
    out.put_i64(Timestamp::from_system_time(SystemTime::now()).0);
    out.put_u8(status.reply_requested.into());
}
