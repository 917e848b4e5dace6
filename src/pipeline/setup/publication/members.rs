//! Which jobs a shared publication vouches for, as its comment says it.
//!
//! A mark says: in this version of the publication and of the table's membership, no change was left out for this job that was
//! committed since a position in the log. Whoever alters either makes another version, and the mark means nothing any more.

use std::collections::BTreeMap;
use std::fmt;

use tokio::time::Instant;

use crate::pipeline::slot::names::MemberId;
use crate::replication::Lsn;

/// What the comment begins with.
const OPENING: &str = "lantern-cli misses no change for";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipRecord {
    /// The oid of the member's table.
    pub table: u32,
    /// See [`Publication::version`](crate::replication::publication::Publication::version).
    pub version: String,
    /// What was committed before is in the table for the job's scan to find.
    pub since: Lsn,
}

/// The marks of one publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MembershipRecords(pub BTreeMap<MemberId, MembershipRecord>);

impl MembershipRecords {
    /// Reads a comment. One that is not ours vouches for nobody.
    pub fn parse(comment: Option<&str>) -> MembershipRecords {
        let Some(list) = comment.and_then(|comment| comment.strip_prefix(OPENING)) else {
            return MembershipRecords::default();
        };
        let mark = |word: &str| {
            let (id, rest) = word.split_once('@')?;
            let mut parts = rest.splitn(3, ':');
            let mark = MembershipRecord {
                table: parts.next()?.parse().ok()?,
                version: parts.next()?.to_owned(),
                since: parts.next()?.parse().ok()?,
            };
            Some((MemberId::from_record(id), mark))
        };
        MembershipRecords(list.split_whitespace().filter_map(mark).collect())
    }

    /// Whether another member is on this table.
    pub fn any_on(&self, table: u32) -> bool {
        self.0.values().any(|mark| mark.table == table)
    }
}

impl fmt::Display for MembershipRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(OPENING)?;
        for (id, mark) in &self.0 {
            let MembershipRecord {
                table,
                version,
                since,
            } = mark;
            write!(f, " {id}@{table}:{version}:{since}")?;
        }
        Ok(())
    }
}

/// The marks, as they were not before a certain moment.
#[derive(Debug, Clone)]
pub struct MembershipSnapshot {
    pub looked: Instant,
    pub marks: MembershipRecords,
}

impl MembershipSnapshot {
    /// Before the first look.
    pub fn nothing() -> Self {
        MembershipSnapshot {
            looked: Instant::now(),
            marks: MembershipRecords::default(),
        }
    }

    pub fn has(&self, id: &MemberId) -> bool {
        self.marks.0.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::SlotName;

    #[test]
    fn marks_survive_being_written_down() {
        let name = |text: &str| MemberId::from_slot(&SlotName::try_from(text).unwrap());
        let mark = |table, version: &str| MembershipRecord {
            table,
            version: version.to_owned(),
            since: Lsn(0x2_0000_000A),
        };
        let marks = MembershipRecords(BTreeMap::from([
            (name("lantern_000000ab_17_0a1b2c3d"), mark(16400, "750/751")),
            (name("lantern_000000ab_x0f_00000001"), mark(16409, "750/9")),
        ]));
        let comment = marks.to_string();
        assert_eq!(
            comment,
            "lantern-cli misses no change for 17_0a1b2c3d@16400:750/751:2/A x0f_00000001@16409:750/9:2/A"
        );
        assert_eq!(MembershipRecords::parse(Some(&comment)), marks);
    }

    #[test]
    fn what_somebody_else_wrote_vouches_for_nobody() {
        for comment in [
            None,
            Some(""),
            Some("my publication"),
            Some("17_0a1b2c3d@1:2/3:4/5"),
        ] {
            assert_eq!(
                MembershipRecords::parse(comment),
                MembershipRecords::default()
            );
        }
        let broken = "lantern-cli misses no change for 17@x:1/2:3/4 18_a 19_b@5 20_c@6:1/2";
        assert_eq!(
            MembershipRecords::parse(Some(broken)),
            MembershipRecords::default()
        );
    }
}
