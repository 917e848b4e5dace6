//! How the daemon recognizes in the stream the rows that it wrote itself.
//!
//! Each write-back emits a logical message before it changes a row. The message is part of the WAL, so it comes through
//! the stream between Begin and the first change of the transaction (PostgreSQL manual, "Replication Management
//! Functions" and "Logical Replication Message Formats"). It works for every role and survives restarts, which neither
//! a list of our own transaction ids nor a replication origin does.
//!
//! The message lists the rows of the batch, because not every change of the transaction is ours: triggers of the table
//! run in it, too. They may write to other tables that have jobs, insert rows, or change the text of the very row.
//!
//! ```text
//! magic │ depth │ job │ tables  │ (key, text) (key, text) …
//!  16      1      8     1 + 4 n   8 + 8 a row                   bytes, big-endian
//! ```

use std::collections::HashMap;
use std::sync::OnceLock;

use xxhash_rust::xxh3::xxh3_64;

use super::row::{Key, SourceText, TextHash};
use super::target::TargetTable;

/// The prefix of the message. Daemons of other versions read it too: never change it. Daemons before this format sent
/// no content; they skip every transaction with the prefix.
pub const WRITE_BACK_MARKER: &str = "lantern";

/// Tells the content from that of any other message under the same prefix: random bytes.
const MAGIC: [u8; 16] = [
    0x9b, 0x1e, 0xd4, 0x62, 0x7f, 0x30, 0xc8, 0xa5, 0x11, 0xee, 0x4a, 0x93, 0x5c, 0x06, 0xb7, 0x01,
];

/// Chains of write-backs whose triggers cause the next write-back end here: the row is quarantined. A trigger that
/// cleans a text up needs one. One that changes the text each time it fires would go on forever.
pub const MAX_CASCADE_DEPTH: u8 = 6;

/// A marker as it arrives. Most slots that bring it carry no table of the write-back, so its list is read only when a
/// change asks for it.
#[derive(Debug)]
pub struct Marker {
    content: Box<[u8]>,
    decoded: OnceLock<Option<WriteBack>>,
}

impl Marker {
    /// The marker with this content. `None` where the message is no marker of ours.
    pub fn new(content: &[u8]) -> Option<Marker> {
        content.starts_with(&MAGIC).then(|| Marker {
            content: content.into(),
            decoded: OnceLock::new(),
        })
    }

    /// What it says. `None` where it is damaged.
    pub fn write_back(&self) -> Option<&WriteBack> {
        let decode = || WriteBack::decode(&self.content);
        self.decoded.get_or_init(decode).as_ref()
    }
}

/// What a marker says of its write-back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBack {
    /// How many write-backs, one by the triggers of the other, led to this one. 0 after a user's change.
    pub depth: u8,
    job: u64,
    tables: Vec<u32>,
    rows: HashMap<u64, TextHash>,
}

/// Who changed a row in the transaction of a write-back, as one job sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author {
    /// The job itself, for this text.
    Own(TextHash),
    /// Another job of the table.
    OtherJob,
    /// No job: a trigger that the write-back fired.
    Trigger,
}

impl WriteBack {
    /// What the content of a message with our prefix says. `None` where the message is not a marker of this format: an
    /// application may use the prefix by chance, and its changes are changes like any other.
    pub fn decode(content: &[u8]) -> Option<WriteBack> {
        let mut rest = content.strip_prefix(&MAGIC)?;
        let depth = take::<1>(&mut rest)?[0];
        let job = u64::from_be_bytes(take(&mut rest)?);
        let tables = usize::from(take::<1>(&mut rest)?[0]);
        let tables: Option<Vec<u32>> = (0..tables)
            .map(|_| take(&mut rest).map(u32::from_be_bytes))
            .collect();
        let pairs = rest.chunks_exact(16);
        if !pairs.remainder().is_empty() {
            return None;
        }
        let rows = pairs.map(|mut pair| {
            let key = u64::from_be_bytes(take(&mut pair)?);
            Some((
                key,
                TextHash::from_bits(u64::from_be_bytes(take(&mut pair)?)),
            ))
        });
        Some(WriteBack {
            depth,
            job,
            tables: tables?,
            rows: rows.collect::<Option<_>>()?,
        })
    }

    /// Who changed the row `key` of `target`.
    pub fn author(&self, target: &TargetTable, key: &Key) -> Author {
        let is_same_table = self
            .tables
            .iter()
            .any(|table| *table == target.oid || target.ancestors.contains(table));
        match self.rows.get(&hash_key(key)) {
            Some(text) if is_same_table && self.job == hash_job(target) => Author::Own(*text),
            Some(_) if is_same_table => Author::OtherJob,
            _ => Author::Trigger,
        }
    }
}

/// The content of the marker for a batch of rows.
pub fn encode<'a>(
    target: &TargetTable,
    depth: u8,
    rows: impl IntoIterator<Item = (&'a Key, &'a SourceText)>,
) -> Vec<u8> {
    let mut content = MAGIC.to_vec();
    content.push(depth);
    content.extend(hash_job(target).to_be_bytes());
    // A table of the stream is named by its root or by itself, as the publication says. A partition has few ancestors.
    let ancestors = &target.ancestors[..target.ancestors.len().min(usize::from(u8::MAX) - 1)];
    content.push(ancestors.len() as u8 + 1);
    for table in std::iter::once(&target.oid).chain(ancestors) {
        content.extend(table.to_be_bytes());
    }
    for (key, source) in rows {
        let text = TextHash::new(source).map_or(0, TextHash::to_bits);
        content.extend(hash_key(key).to_be_bytes());
        content.extend(text.to_be_bytes());
    }
    content
}

/// Jobs of one table are told apart by their destinations: two with the same one are not allowed. That of a job with
/// passages is a column of another table, and may have the name of one of this table.
fn hash_job(target: &TargetTable) -> u64 {
    let destination = &target.destination.name;
    match &target.passages {
        Some(_) => xxh3_64(format!("{}.{destination}", target.written().qualified()).as_bytes()),
        None => xxh3_64(destination.as_bytes()),
    }
}

fn hash_key(key: &Key) -> u64 {
    if key.len() == 1 {
        return xxh3_64(key.part(0).as_bytes());
    }
    let mut bytes = Vec::with_capacity(key.bytes() + 8 * key.len());
    for part in key.parts() {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh3_64(&bytes)
}

/// The next `N` bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(part: &str) -> Key {
        Key::new([part.into()])
    }

    fn marker(target: &TargetTable, rows: &[(&str, &str)]) -> WriteBack {
        let rows: Vec<(Key, SourceText)> = rows
            .iter()
            .map(|(part, text)| (key(part), SourceText::from_column(Some(text))))
            .collect();
        let content = encode(target, 2, rows.iter().map(|(key, source)| (key, source)));
        WriteBack::decode(&content).expect("a marker")
    }

    #[test]
    fn a_marker_tells_our_rows_from_those_of_triggers() {
        let target = TargetTable::example();
        let marker = marker(&target, &[("1", "tides"), ("2", "")]);
        assert_eq!(marker.depth, 2);
        let tides = TextHash::new(&SourceText::from_column(Some("tides"))).unwrap();
        assert_eq!(marker.author(&target, &key("1")), Author::Own(tides));
        let empty = TextHash::new(&SourceText::Empty).unwrap();
        assert_eq!(marker.author(&target, &key("2")), Author::Own(empty));
        assert_eq!(marker.author(&target, &key("3")), Author::Trigger);
    }

    #[test]
    fn the_same_key_in_another_table_is_another_row() {
        let target = TargetTable::example();
        let marker = marker(&target, &[("1", "tides")]);
        let history = TargetTable {
            oid: target.oid + 1,
            ..TargetTable::example()
        };
        assert_eq!(marker.author(&history, &key("1")), Author::Trigger);
        let mut other_job = TargetTable::example();
        other_job.destination.name = "other".into();
        assert_eq!(marker.author(&other_job, &key("1")), Author::OtherJob);
    }

    /// The stream names the root, or the partition, as the publication of each job says.
    #[test]
    fn a_job_on_a_partition_and_one_on_its_root_recognize_each_other() {
        let root = TargetTable::example();
        let partition = TargetTable {
            oid: 77,
            ancestors: vec![root.oid],
            ..TargetTable::example()
        };
        for (writer, reader) in [(&root, &partition), (&partition, &root)] {
            let marker = marker(writer, &[("1", "tides")]);
            assert_ne!(marker.author(reader, &key("1")), Author::Trigger);
        }
    }

    #[test]
    fn a_message_of_an_application_is_no_marker() {
        for content in [&b""[..], b"hello", &MAGIC, &[0; 64]] {
            assert_eq!(WriteBack::decode(content), None, "{content:?}");
        }
        let mut torn = encode(
            &TargetTable::example(),
            0,
            [(&key("1"), &SourceText::Empty)],
        );
        torn.pop();
        assert_eq!(WriteBack::decode(&torn), None);
    }

    proptest! {
        #[test]
        fn any_content_is_read_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = WriteBack::decode(&tail);
            let _ = WriteBack::decode(&[&MAGIC[..], &tail].concat());
        }
    }
}
