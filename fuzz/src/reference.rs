//! The framing a second time, as plainly as possible: all bytes at hand, no buffers, no I/O.

use bytes::BytesMut;
use lantern::replication::{Frame, Lsn};
use postgres_protocol::message::backend::Message;

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    ServerError,
    Violation,
}

/// The frames of a CopyBoth stream, and how it ends (documentation: protocol-replication).
pub fn frames(mut rest: &[u8]) -> (Vec<Frame>, End) {
    let mut frames = Vec::new();
    while let [tag, a, b, c, d, behind @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(body_length) = length
            .checked_sub(4)
            .filter(|_| length <= i32::MAX as usize)
        else {
            return (frames, End::Violation);
        };
        if length > 30_000 && !b"dDTENAV".contains(tag) {
            return (frames, End::Violation);
        }
        let Some((body, next)) = behind.split_at_checked(body_length) else {
            return (frames, End::Closed);
        };
        match (tag, body) {
            (b'd', [b'w', header @ ..]) if header.len() >= 24 => frames.push(Frame::XLogData {
                wal_start: Lsn(number(&header[..8])),
                wal_end: Lsn(number(&header[8..16])),
                payload: header[24..].to_vec().into(),
            }),
            (b'd', [b'k', header @ ..]) if header.len() == 17 => frames.push(Frame::Keepalive {
                wal_end: Lsn(number(&header[..8])),
                reply_requested: header[16] != 0,
            }),
            (b'd', _) => return (frames, End::Violation),
            _ => match Message::parse(&mut BytesMut::from(rest)) {
                Ok(Some(Message::NoticeResponse(_) | Message::ParameterStatus(_))) => {}
                Ok(Some(Message::ErrorResponse(_))) => return (frames, End::ServerError),
                Ok(Some(
                    Message::CopyDone | Message::CommandComplete(_) | Message::ReadyForQuery(_),
                )) => return (frames, End::Closed),
                _ => return (frames, End::Violation),
            },
        }
        rest = next;
    }
    (frames, End::Closed)
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}
