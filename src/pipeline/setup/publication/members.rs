//! Which jobs a shared publication serves without a gap: the membership records in its comment.
//!
//! ```text
//! lantern-cli misses no change for 17_0a1b2c3d@16400:750/751:2/A …
//!                                  │           │     │       └ since: the position in the WAL
//!                                  │           │     └ version of publication and table (xmin/xmin)
//!                                  │           └ OID of the table
//!                                  └ the job and its definition
//! ```
//!
//! A record proves this: as long as publication and table are in this version, the slot's stream has every change of
//! the table that was committed after `since`. The record and the version change in one transaction
//! ([`edit`](super::edit)). If another session alters or recreates the publication, its version is another, and the
//! record proves nothing any more.
//!
//! The text is kept on servers: every version of this program must write and read the same.

use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;

use crate::pipeline::slot::names::MemberId;
use crate::replication::Lsn;
use crate::replication::pgoutput::RelationId;

/// The comment begins with this.
const OPENING: &str = "lantern-cli misses no change for";

/// What the comment says of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipRecord {
    /// The OID of the member's table.
    pub table: u32,
    /// See [`Publication::version`](super::catalog::Publication::version).
    pub version: String,
    /// The stream has what was committed after this position. What was committed before is in the table when the
    /// member's scan begins.
    pub since: Lsn,
}

/// The records of all members of a publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembershipRecords(BTreeMap<MemberId, MembershipRecord>);

impl MembershipRecords {
    /// Reads a comment. One that is not ours has no records, and a record that cannot be read is left out.
    pub fn parse(comment: Option<&str>) -> MembershipRecords {
        let list = comment.and_then(|comment| comment.strip_prefix(OPENING));
        list.unwrap_or_default()
            .split_whitespace()
            .filter_map(parse_record)
            .collect()
    }

    /// The record of a member.
    pub fn get(&self, id: &MemberId) -> Option<&MembershipRecord> {
        self.0.get(id)
    }

    /// Adds or replaces the record of a member.
    pub fn insert(&mut self, id: MemberId, record: MembershipRecord) {
        self.0.insert(id, record);
    }

    /// Removes the record of a member.
    pub fn remove(&mut self, id: &MemberId) -> Option<MembershipRecord> {
        self.0.remove(id)
    }

    /// All members and their records.
    pub fn iter(&self) -> impl Iterator<Item = (&MemberId, &MembershipRecord)> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a member with this table.
    pub fn any_on(&self, table: u32) -> bool {
        self.0.values().any(|record| record.table == table)
    }

    /// Keeps the records for which this is true.
    pub fn retain(&mut self, is_kept: impl Fn(&MembershipRecord) -> bool) {
        self.0.retain(|_, record| is_kept(record));
    }

    /// The publication's own catalog row is replaced, and with it the first half of each version: records of the version that
    /// it has now stay valid. `version` is that of one table; returns what becomes of it.
    pub fn publication_replaced(&mut self, version: &str, row: &str) -> String {
        let (before, table) = version.split_once('/').unwrap_or((version, ""));
        for record in self.0.values_mut() {
            if let Some((found, table)) = record.version.split_once('/')
                && found == before
            {
                record.version = format!("{row}/{table}");
            }
        }
        format!("{row}/{table}")
    }

    /// Gives the records of this table another version.
    pub fn set_version(&mut self, table: u32, version: &str) {
        for record in self.0.values_mut() {
            if record.table == table {
                version.clone_into(&mut record.version);
            }
        }
    }
}

impl FromIterator<(MemberId, MembershipRecord)> for MembershipRecords {
    fn from_iter<I: IntoIterator<Item = (MemberId, MembershipRecord)>>(records: I) -> Self {
        MembershipRecords(records.into_iter().collect())
    }
}

fn parse_record(word: &str) -> Option<(MemberId, MembershipRecord)> {
    let (id, rest) = word.split_once('@')?;
    let mut parts = rest.splitn(3, ':');
    let record = MembershipRecord {
        table: parts.next()?.parse().ok()?,
        version: parts.next()?.to_owned(),
        since: parts.next()?.parse().ok()?,
    };
    Some((MemberId::from_record(id), record))
}

impl fmt::Display for MembershipRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OPENING)?;
        for (id, record) in &self.0 {
            let MembershipRecord {
                table,
                version,
                since,
            } = record;
            write!(f, " {id}@{table}:{version}:{since}")?;
        }
        Ok(())
    }
}

/// The membership records as they were read at or after a moment.
#[derive(Debug, Clone)]
pub struct MembershipSnapshot {
    /// Changes from before this moment are in the records.
    pub looked: Instant,
    /// What was read.
    pub records: MembershipRecords,
}

impl MembershipSnapshot {
    /// A snapshot without members, for before the first look.
    pub fn empty() -> Self {
        MembershipSnapshot {
            looked: Instant::now(),
            records: MembershipRecords::default(),
        }
    }

    /// Whether this is a member with this table.
    pub fn contains(&self, id: &MemberId, table: RelationId) -> bool {
        let record = self.records.get(id);
        record.is_some_and(|record| record.table == table.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::SlotName;

    fn member(name: &str) -> MemberId {
        MemberId::from_slot(&SlotName::try_from(name).unwrap())
    }

    fn record(table: u32, version: &str) -> MembershipRecord {
        MembershipRecord {
            table,
            version: version.to_owned(),
            since: Lsn(0x2_0000_000A),
        }
    }

    #[test]
    fn records_are_read_as_they_are_written() {
        let records = MembershipRecords::from_iter([
            (
                member("lantern_000000ab_17_0a1b2c3d"),
                record(16400, "750/751"),
            ),
            (
                member("lantern_000000ab_x0f_00000001"),
                record(16409, "750/9"),
            ),
        ]);
        let comment = records.to_string();
        assert_eq!(
            comment,
            "lantern-cli misses no change for 17_0a1b2c3d@16400:750/751:2/A x0f_00000001@16409:750/9:2/A"
        );
        assert_eq!(MembershipRecords::parse(Some(&comment)), records);
    }

    #[test]
    fn a_comment_of_another_author_has_no_records() {
        let none = MembershipRecords::default();
        for comment in [
            None,
            Some(""),
            Some("my publication"),
            Some("17_0a1b2c3d@1:2/3:4/5"),
            Some("lantern-cli misses no change for 17@x:1/2:3/4 18_a 19_b@5 20_c@6:1/2"),
            Some("lantern-cli misses no change for as long as this is version 750/751"),
        ] {
            assert_eq!(MembershipRecords::parse(comment), none);
        }
    }

    #[test]
    fn records_of_another_version_are_removed_for_their_table_only() {
        let mut records = MembershipRecords::from_iter([
            (
                member("lantern_000000ab_1_00000001"),
                record(16400, "750/751"),
            ),
            (
                member("lantern_000000ab_2_00000001"),
                record(16400, "750/8"),
            ),
            (
                member("lantern_000000ab_3_00000001"),
                record(16409, "750/9"),
            ),
        ]);
        records.retain(|record| record.table != 16400 || record.version == "750/751");
        records.set_version(16400, "750/800");
        assert_eq!(
            records.to_string(),
            "lantern-cli misses no change for 1_00000001@16400:750/800:2/A 3_00000001@16409:750/9:2/A"
        );
        assert_eq!(records.publication_replaced("750/800", "900"), "900/800");
        assert_eq!(
            records.to_string(),
            "lantern-cli misses no change for 1_00000001@16400:900/800:2/A 3_00000001@16409:900/9:2/A"
        );
    }
}
