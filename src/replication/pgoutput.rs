//! Decoder for the messages of the `pgoutput` plugin, protocol version 1.
//!
//! Bytes in, values out, which borrow from the bytes; no I/O, no allocation. PostgreSQL manual, "Logical
//! Replication Message Formats"; the encoder is `logicalrep_write_*` in the server's `proto.c`. Integers are
//! big-endian, strings end in NUL. Any bytes give a message or an error.
//!
//! ```text
//! Begin ─▶ Relation ─▶ Insert, Update, Delete, Truncate, … ─▶ Commit
//!          the table behind a number, before its first use
//! ```
//!
//! A row names its table by number alone ([`RelationId`]). The server explains a number by a Relation message before
//! its first use in a connection, and again after the table has changed: keep it as a [`RelationSchema`].
//!
//! ```
//! use lantern::replication::pgoutput::{Message, RelationId, Value, decode};
//!
//! let payload = b"I\0\0\x40\x01N\0\x02t\0\0\0\x0242n";
//! let Message::Insert { relation, new } = decode(payload)? else {
//!     panic!("an Insert");
//! };
//! assert_eq!(relation, RelationId(0x4001));
//! assert_eq!(new.iter().collect::<Vec<_>>(), [Value::Text(b"42"), Value::Null]);
//! # Ok::<(), lantern::replication::pgoutput::DecodeError>(())
//! ```

mod reader;
mod relation;
mod tuple;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use reader::DecodeError;
use reader::Reader;
pub use relation::{
    ColumnBody, ColumnSchema, Columns, RelationBody, RelationId, RelationSchema, ReplicaIdentity,
};
pub use tuple::{TupleData, Value, Values};

use super::lsn::Lsn;

/// One message of the stream. Strings and values borrow from the decoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins. Its changes follow, then its Commit.
    Begin {
        /// Where its commit record starts.
        final_lsn: Lsn,
        /// When it was committed.
        commit_time: Timestamp,
        /// Its transaction id, without the epoch.
        xid: u32,
    },
    /// The transaction is complete.
    Commit {
        /// Where its commit record starts: the `final_lsn` of its Begin.
        commit_lsn: Lsn,
        /// Where its commit record ends: the position to confirm.
        end_lsn: Lsn,
        /// When it was committed.
        commit_time: Timestamp,
    },
    /// The transaction reached the server by replication from another one.
    Origin {
        /// Where it was committed on that server.
        commit_lsn: Lsn,
        /// The replication origin (`pg_replication_origin`).
        name: &'a str,
    },
    /// The table behind a number, before its first use.
    Relation(RelationBody<'a>),
    /// A type that is not built in, before its first use in a Relation.
    Type {
        /// Its OID.
        oid: u32,
        /// Its schema; empty for `pg_catalog`.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// Its table.
        relation: RelationId,
        /// The row.
        new: TupleData<'a>,
    },
    /// A row was updated. At most one of `key` and `old` is present.
    Update {
        /// Its table.
        relation: RelationId,
        /// The old replica identity, if the update changed it. The other columns are Null.
        key: Option<TupleData<'a>>,
        /// The whole old row, under REPLICA IDENTITY FULL.
        old: Option<TupleData<'a>>,
        /// The row as it is now.
        new: TupleData<'a>,
    },
    /// A row was deleted. Exactly one of `key` and `old` is present.
    Delete {
        /// Its table.
        relation: RelationId,
        /// The old replica identity. The other columns are Null.
        key: Option<TupleData<'a>>,
        /// The whole old row, under REPLICA IDENTITY FULL.
        old: Option<TupleData<'a>>,
    },
    /// Tables were truncated.
    Truncate {
        /// The published ones among them.
        relations: Relations<'a>,
        /// `TRUNCATE … CASCADE`.
        cascade: bool,
        /// `TRUNCATE … RESTART IDENTITY`.
        restart_identity: bool,
    },
    /// A message written by `pg_logical_emit_message`.
    LogicalMessage {
        /// Whether it is part of a transaction. Otherwise it may arrive between transactions.
        transactional: bool,
        /// Its position in the WAL.
        lsn: Lsn,
        /// Says which application it is for.
        prefix: &'a str,
        /// Its bytes.
        content: &'a [u8],
    },
}

/// Decodes one message: the payload of one XLogData.
///
/// # Errors
/// If the bytes are not exactly one message of protocol version 1.
pub fn decode(payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(payload);
    let message = match reader.u8()? {
        b'I' => Message::Insert {
            relation: RelationId(reader.u32()?),
            new: new_tuple(&mut reader)?,
        },
        b'U' => update(&mut reader)?,
        b'B' => begin(&mut reader)?,
        b'C' => commit(&mut reader)?,
        b'R' => Message::Relation(RelationBody::read(&mut reader)?),
        b'D' => delete(&mut reader)?,
        b'M' => logical_message(&mut reader)?,
        b'T' => truncate(&mut reader)?,
        b'O' => Message::Origin {
            commit_lsn: Lsn(reader.u64()?),
            name: reader.string()?,
        },
        b'Y' => Message::Type {
            oid: reader.u32()?,
            namespace: reader.string()?,
            name: reader.string()?,
        },
        tag => return Err(DecodeError::UnknownMessage(tag)),
    };
    reader.end()?;
    Ok(message)
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin {
        final_lsn: Lsn(reader.u64()?),
        commit_time: Timestamp(reader.i64()?),
        xid: reader.u32()?,
    })
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    reader.u8()?; // flags, none defined
    Ok(Message::Commit {
        commit_lsn: Lsn(reader.u64()?),
        end_lsn: Lsn(reader.u64()?),
        commit_time: Timestamp(reader.i64()?),
    })
}

fn new_tuple<'a>(reader: &mut Reader<'a>) -> Result<TupleData<'a>, DecodeError> {
    match reader.u8()? {
        b'N' => TupleData::read(reader),
        kind => Err(DecodeError::UnknownTuple(kind)),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = RelationId(reader.u32()?);
    let (mut key, mut old) = (None, None);
    let new = match reader.u8()? {
        b'N' => TupleData::read(reader)?,
        b'K' => {
            key = Some(TupleData::read(reader)?);
            new_tuple(reader)?
        }
        b'O' => {
            old = Some(TupleData::read(reader)?);
            new_tuple(reader)?
        }
        kind => return Err(DecodeError::UnknownTuple(kind)),
    };
    Ok(Message::Update {
        relation,
        key,
        old,
        new,
    })
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = RelationId(reader.u32()?);
    match reader.u8()? {
        b'K' => Ok(Message::Delete {
            relation,
            key: Some(TupleData::read(reader)?),
            old: None,
        }),
        b'O' => Ok(Message::Delete {
            relation,
            key: None,
            old: Some(TupleData::read(reader)?),
        }),
        kind => Err(DecodeError::UnknownTuple(kind)),
    }
}

fn logical_message<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let flags = reader.u8()?;
    let lsn = Lsn(reader.u64()?);
    let prefix = reader.string()?;
    let length = reader.u32()?;
    Ok(Message::LogicalMessage {
        transactional: flags & 1 != 0,
        lsn,
        prefix,
        content: reader.take(length as usize)?,
    })
}

/// The part of a logical message before the length of its content, if `payload` begins with all of it. What `payload` lacks
/// need not have arrived yet.
pub fn head_of_logical_message(payload: &[u8]) -> Option<&[u8]> {
    /// Tag, flags and position.
    const FIXED: usize = 1 + 1 + 8;
    if payload.first() != Some(&b'M') {
        return None;
    }
    let prefix = payload.get(FIXED..)?;
    let end = prefix.iter().position(|byte| *byte == 0)?;
    payload.get(..=FIXED + end)
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = reader.u32()? as usize;
    let options = reader.u8()?;
    let length = count
        .checked_mul(RELATION_ID_SIZE)
        .ok_or(DecodeError::Truncated)?;
    Ok(Message::Truncate {
        relations: Relations(reader.take(length)?),
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

const RELATION_ID_SIZE: usize = size_of::<u32>();

/// The relations of a Truncate. Iterating does not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relations<'a>(&'a [u8]);

impl<'a> Relations<'a> {
    /// The number of relations.
    pub fn len(&self) -> usize {
        self.0.len() / RELATION_ID_SIZE
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The relations, in the order of the message.
    pub fn iter(&self) -> impl Iterator<Item = RelationId> + 'a {
        self.0
            .as_chunks::<RELATION_ID_SIZE>()
            .0
            .iter()
            .map(|bytes| RelationId(u32::from_be_bytes(*bytes)))
    }
}

/// A time on the server's clock, in microseconds since 2000-01-01 00:00 UTC (PostgreSQL's `timestamptz`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// 2000-01-01 as seconds since 1970-01-01.
    const EPOCH: Duration = Duration::from_secs(946_684_800);

    /// The same time on the system's clock, or `None` if it is out of that clock's range.
    pub fn to_system_time(self) -> Option<SystemTime> {
        let epoch = UNIX_EPOCH + Self::EPOCH;
        let distance = Duration::from_micros(self.0.unsigned_abs());
        if self.0 < 0 {
            epoch.checked_sub(distance)
        } else {
            epoch.checked_add(distance)
        }
    }

    /// `time` to the microsecond. A time that is out of range becomes the first or last one in range.
    pub fn from_system_time(time: SystemTime) -> Timestamp {
        let micros = |distance: Duration| i64::try_from(distance.as_micros()).unwrap_or(i64::MAX);
        Timestamp(match time.duration_since(UNIX_EPOCH + Self::EPOCH) {
            Ok(after) => micros(after),
            Err(before) => -micros(before.duration()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_of_a_real_server_is_decoded() {
        let payload = b"I\0\0\x40\x01N\0\x03t\0\0\0\x0242nu";
        let Message::Insert { relation, new } = decode(payload).unwrap() else {
            panic!("an Insert")
        };
        assert_eq!(relation, RelationId(0x4001));
        assert_eq!(
            new.iter().collect::<Vec<_>>(),
            [Value::Text(b"42"), Value::Null, Value::UnchangedToast]
        );
    }

    #[test]
    fn a_begin_tells_when_the_transaction_committed() {
        let payload = b"B\0\0\0\x16\xB3\x74\xD8\x48\0\0\0\0\0\x0F\x42\x40\0\0\x02\xA0";
        let expected = Message::Begin {
            final_lsn: "16/B374D848".parse().unwrap(),
            commit_time: Timestamp(1_000_000),
            xid: 672,
        };
        assert_eq!(decode(payload), Ok(expected));
    }

    #[test]
    fn messages_of_other_protocol_versions_are_errors() {
        assert_eq!(decode(b""), Err(DecodeError::Truncated));
        assert_eq!(
            decode(b"S\0\0\0\x01\x01"),
            Err(DecodeError::UnknownMessage(b'S'))
        );
        assert_eq!(
            decode(b"I\0\0\0\x01X\0\0"),
            Err(DecodeError::UnknownTuple(b'X'))
        );
        assert_eq!(
            decode(b"I\0\0\0\x01N\0\x01z"),
            Err(DecodeError::UnknownValue(b'z'))
        );
        assert_eq!(
            decode(b"I\0\0\0\x01N\0\x01t\xFF\xFF\xFF\xFFx"),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            decode(b"I\0\0\0\x01N\0\0more"),
            Err(DecodeError::TrailingBytes(4))
        );
        assert_eq!(decode(b"T\xFF\xFF\xFF\xFF\0"), Err(DecodeError::Truncated));
    }

    #[test]
    fn timestamps_count_from_the_year_2000() {
        let system = Timestamp(1_500_000).to_system_time().unwrap();
        assert_eq!(
            system.duration_since(UNIX_EPOCH).unwrap(),
            Duration::from_millis(946_684_801_500)
        );
        assert_eq!(Timestamp::from_system_time(system), Timestamp(1_500_000));
        assert_eq!(
            Timestamp::from_system_time(UNIX_EPOCH),
            Timestamp(-946_684_800_000_000)
        );
        assert_eq!(
            Timestamp(-946_684_800_000_000).to_system_time(),
            Some(UNIX_EPOCH)
        );
    }
}
