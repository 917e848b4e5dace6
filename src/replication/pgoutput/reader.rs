//! Reads numbers and strings from the front of a message.

use std::str;

/// The bytes are not a message of the `pgoutput` protocol, version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before its last field.
    #[error("the replication message ends too early")]
    Truncated,
    /// There are this many bytes after the last field.
    #[error("the replication message has {0} bytes after its end")]
    TrailingBytes(usize),
    /// The tag of the message is not one of this version.
    #[error("unknown replication message {:?}", char::from(*.0))]
    UnknownMessage(u8),
    /// A row begins with a letter other than N, K and O.
    #[error("unknown kind of row {:?} in a replication message", char::from(*.0))]
    UnknownTuple(u8),
    /// A value begins with a letter other than n, u, t and b.
    #[error("unknown kind of value {:?} in a replication message", char::from(*.0))]
    UnknownValue(u8),
    /// The replica identity is a letter other than d, n, f and i.
    #[error("unknown replica identity {:?} in a replication message", char::from(*.0))]
    UnknownReplicaIdentity(u8),
    /// A name is not UTF-8, although the connection asks for it.
    #[error("a name in a replication message is not UTF-8")]
    NotUtf8,
}

/// What is left of a message.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*chunk)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.chunk().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.chunk().map(u32::from_be_bytes)
    }

    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.chunk().map(i32::from_be_bytes)
    }

    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.chunk().map(u64::from_be_bytes)
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.chunk().map(i64::from_be_bytes)
    }

    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A string up to its NUL. The connection sets `client_encoding`, so a server sends UTF-8 only.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        let length = memchr::memchr(0, self.rest).ok_or(DecodeError::Truncated)?;
        let bytes = self.take(length)?;
        self.u8()?;
        str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
    }

    /// Runs `walk` and returns the bytes that it read.
    #[inline]
    pub fn span(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<&'a [u8], DecodeError> {
        let start = self.rest;
        walk(self)?;
        Ok(&start[..start.len() - self.rest.len()])
    }

    pub fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(DecodeError::TrailingBytes(more)),
        }
    }
}
