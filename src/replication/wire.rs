//! The two buffers of a connection, and the moves of bytes between them and the socket.
//!
//! ```text
//! socket ──fill──▶ incoming ──▶ whole messages
//! socket ◀─flush── outgoing ◀── whole messages
//! ```
//!
//! All bytes that were received or wait to be sent are in [`Wire`], never in a future. So every wait here can be
//! dropped at any point and repeated: no byte is lost, repeated or torn.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::{self, Message};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::error::ReplicationError;
use super::transport::Transport;

/// Bytes of room for a read. A walsender under load fills it: one system call for hundreds of small messages.
const READ_SIZE: usize = 128 * 1024;
/// Below this many bytes of room the buffer is extended before a read.
const MIN_ROOM: usize = 16 * 1024;
/// The buffer of a larger message (in bytes) is given away with it; the connection continues with a small one.
const LARGE_MESSAGE: usize = 1024 * 1024;

/// The limit in bytes for messages of all kinds but those of [`MAY_BE_LONG`], as in libpq (`fe-protocol3.c`,
/// VALID_LONG_MESSAGE_TYPE).
const MAX_SHORT_MESSAGE: usize = 30_000;
/// The limit in bytes outside of a stream, for a message and for all rows of an answer: what a walsender says of itself is
/// short, and so is an error. Only a change of a row may be as long as a row can be.
pub(super) const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// CopyData, DataRow, RowDescription, ErrorResponse, NoticeResponse, NotificationResponse, FunctionCallResponse.
const MAY_BE_LONG: &[u8] = b"dDTENAV";

pub(super) struct Wire {
    pub transport: Transport,
    /// Received, and not yet taken.
    pub incoming: BytesMut,
    /// Written, and not yet sent. All messages are whole but the first, which may have been sent in part.
    pub outgoing: BytesMut,
    needs_flush: bool,
}

impl Wire {
    pub fn new(transport: Transport) -> Wire {
        Wire {
            transport,
            incoming: BytesMut::with_capacity(READ_SIZE),
            outgoing: BytesMut::new(),
            needs_flush: false,
        }
    }

    /// Sends all of `outgoing`. Cancellation safe: unsent bytes stay there.
    pub async fn flush(&mut self) -> Result<(), ReplicationError> {
        poll_fn(|cx| self.poll_flush(cx))
            .await
            .map_err(ReplicationError::from)
    }

    /// Waits for more bytes in `incoming`, and meanwhile sends `outgoing`. Cancellation safe.
    ///
    /// # Errors
    /// [`ReplicationError::Closed`] at the end of the connection. A failure to send is reported only when there is
    /// nothing more to receive: the server's last message may say the reason.
    pub async fn fill(&mut self) -> Result<(), ReplicationError> {
        self.make_room()?;
        match poll_fn(|cx| self.poll_fill(cx)).await? {
            0 => Err(ReplicationError::Closed),
            _ => Ok(()),
        }
    }

    /// Takes what has arrived into `incoming`, without waiting. False if there is nothing.
    ///
    /// # Errors
    /// As [`fill`](Self::fill).
    pub async fn fill_with_arrived(&mut self) -> Result<bool, ReplicationError> {
        self.make_room()?;
        match poll_fn(|cx| Poll::Ready(self.poll_fill(cx))).await {
            Poll::Pending => Ok(false),
            Poll::Ready(received) => match received? {
                0 => Err(ReplicationError::Closed),
                _ => Ok(true),
            },
        }
    }

    /// As [`fill`](Self::fill), for a message of at most [`MAX_ANSWER`] bytes, of which some may have arrived.
    pub async fn fill_answer(&mut self) -> Result<(), ReplicationError> {
        match self.incoming.len() {
            length if length > MAX_ANSWER => Err(too_long(length)),
            _ => self.fill().await,
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let sent = self.poll_flush(cx);
        let received = pin!(self.transport.read_buf(&mut self.incoming)).poll(cx);
        match (received, sent) {
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (received, _) => received,
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.outgoing.has_remaining() {
            let sent = ready!(Pin::new(&mut self.transport).poll_write(cx, &self.outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(sent);
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room for the next read. The buffer grows with the bytes of a large message that have arrived, not with the
    /// length that its header claims: an attacker could claim gigabytes.
    fn make_room(&mut self) -> Result<(), ReplicationError> {
        let room = self.incoming.capacity() - self.incoming.len();
        if room < MIN_ROOM {
            let missing = message_length(&self.incoming)?
                .unwrap_or(0)
                .saturating_sub(self.incoming.len());
            let growth = missing.min(self.incoming.len());
            self.incoming.reserve(growth.max(READ_SIZE));
        }
        Ok(())
    }

    /// Call after a message of `length` bytes was split off. Gives its buffer away if it was a large one.
    pub fn release(&mut self, length: usize) {
        if length > LARGE_MESSAGE {
            let mut fresh = BytesMut::with_capacity(READ_SIZE.max(self.incoming.len()));
            fresh.extend_from_slice(&self.incoming);
            self.incoming = fresh;
        }
    }

    /// The next message of the ordinary protocol, of at most [`MAX_ANSWER`] bytes. Notices are logged and skipped.
    /// Cancellation safe.
    pub async fn message(&mut self) -> Result<Message, ReplicationError> {
        loop {
            // `parse` reserves the length that a header claims, so it gets whole messages only.
            while message_length(&self.incoming)?.is_none_or(|length| length > self.incoming.len())
            {
                self.fill_answer().await?;
            }
            match Message::parse(&mut self.incoming).map_err(ReplicationError::protocol)? {
                Some(Message::NoticeResponse(notice)) => log_notice(notice.fields()),
                Some(message) => return Ok(message),
                None => return Err(ReplicationError::protocol("half a message")),
            }
        }
    }

    /// As [`message`](Self::message), but an ErrorResponse is an `Err`.
    pub async fn expect_message(&mut self) -> Result<Message, ReplicationError> {
        match self.message().await? {
            Message::ErrorResponse(body) => Err(ReplicationError::server(body.fields())),
            message => Ok(message),
        }
    }

    /// Ends the sending side of the connection.
    pub async fn shut_down(&mut self) -> Result<(), ReplicationError> {
        poll_fn(|cx| Pin::new(&mut self.transport).poll_shutdown(cx))
            .await
            .map_err(ReplicationError::from)
    }
}

/// The length of the message at the start of `bytes`, tag included, or `None` if there are too few bytes to tell.
///
/// # Errors
/// If no PostgreSQL server sends such a message. It is how the answers of other protocols read (an HTTP server's
/// `HTTP/1.1` is a message `H` of 1.4 GB), and the client would wait for the rest in vain.
pub(super) fn message_length(bytes: &[u8]) -> Result<Option<usize>, ReplicationError> {
    let header = backend::Header::parse(bytes).map_err(ReplicationError::protocol)?;
    let Some(header) = header else {
        return Ok(None);
    };
    let length = usize::try_from(header.len()).map_err(ReplicationError::protocol)?;
    if length > MAX_SHORT_MESSAGE && !MAY_BE_LONG.contains(&header.tag()) {
        return Err(ReplicationError::Protocol(format!(
            "a message {:?} of {length} bytes; is this a PostgreSQL server?",
            char::from(header.tag())
        )));
    }
    Ok(Some(1 + length))
}

/// More than a server has to say.
pub(super) fn too_long(length: usize) -> ReplicationError {
    ReplicationError::Protocol(format!(
        "an answer of {length} bytes or more, which no PostgreSQL server sends"
    ))
}

pub(super) fn log_notice(fields: backend::ErrorFields<'_>) {
    tracing::debug!(notice = %ReplicationError::server(fields), "notice from the server");
}
