//! Partitions that cannot be followed with their table.
//!
//! A table with a key has no foreign partitions: the server refuses them where the table has a unique index.
//!
//! A partition is a table with a persistence and a replica identity of its own. Changes of one that is not in the WAL never
//! come. UPDATE of a row is checked against the replica identity of its partition, and against what the publication says of
//! the table (`CheckCmdReplicaIdentity` in `execReplication.c`).

use crate::pipeline::setup::publication::catalog::COLUMN_LISTS_SINCE;
use crate::pipeline::table::leaf::Leaf;
use crate::pipeline::table::target::KeyColumn;

/// What a partition must agree with.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a> {
    /// Schema and name of the partitioned table, quoted.
    pub table: &'a str,
    /// Its key.
    pub key: &'a [KeyColumn],
    /// Whether it has REPLICA IDENTITY FULL, so that it is published without a column list.
    pub identity_full: bool,
    /// The server's version, as `server_version_num`.
    pub version: u32,
}

/// Why one of the partitions cannot be followed, with the remedy.
pub fn find_unsuitable(root: Root<'_>, leaves: &[Leaf]) -> Option<String> {
    let fault = |leaf: &Leaf| not_in_wal(root, leaf).or_else(|| other_identity(root, leaf));
    leaves.iter().find_map(fault)
}

fn not_in_wal(root: Root<'_>, leaf: &Leaf) -> Option<String> {
    let (table, partition) = (root.table, leaf.qualified());
    (leaf.persistence != b'p').then(|| {
        format!(
            "the partition {partition} of {table} is unlogged, so its changes are not in the WAL; \
             run: ALTER TABLE {partition} SET LOGGED;"
        )
    })
}

fn other_identity(root: Root<'_>, leaf: &Leaf) -> Option<String> {
    let (table, partition) = (root.table, leaf.qualified());
    let default = format!("ALTER TABLE {partition} REPLICA IDENTITY DEFAULT;");
    let (has, remedy) = match leaf.identity {
        b'f' if root.identity_full || root.version < COLUMN_LISTS_SINCE => return None,
        b'f' => ("REPLICA IDENTITY FULL, and the table has not", default),
        b'd' | b'i' if has_key(root, leaf) => return None,
        // The index is one of the table's, and the partition has its primary key.
        b'd' => (
            "another replica identity than the table",
            format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"),
        ),
        b'i' => ("another replica identity than the table", default),
        _ => ("REPLICA IDENTITY NOTHING", default),
    };
    Some(format!(
        "the partition {partition} of {table} has {has}: publishing the table would make every UPDATE of the partition fail; \
         run: {remedy}"
    ))
}

fn has_key(root: Root<'_>, leaf: &Leaf) -> bool {
    let mut key: Vec<&String> = root.key.iter().map(|column| &column.name).collect();
    key.sort_unstable();
    let found = leaf.key.as_ref();
    found.is_none_or(|found| found.iter().eq(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf() -> Leaf {
        Leaf {
            oid: 10,
            schema: "public".into(),
            name: "docs_1".into(),
            links: "/10.700".into(),
            is_recent: false,
            persistence: b'p',
            identity: b'd',
            key: None,
            source: None,
            is_readable: true,
        }
    }

    fn refusal(leaf: Leaf) -> Option<String> {
        let root = Root {
            table: "\"public\".\"docs\"",
            key: &[KeyColumn::example("id", "bigint")],
            identity_full: false,
            version: 180_000,
        };
        find_unsuitable(root, &[leaf])
    }

    #[test]
    fn a_partition_that_cannot_be_followed_is_named_with_a_remedy() {
        assert_eq!(refusal(leaf()), None);
        for (unsuitable, remedy) in [
            (
                Leaf {
                    persistence: b'u',
                    ..leaf()
                },
                "\"docs_1\" SET LOGGED",
            ),
            (
                Leaf {
                    identity: b'n',
                    ..leaf()
                },
                "\"docs_1\" REPLICA IDENTITY DEFAULT",
            ),
            (
                Leaf {
                    identity: b'f',
                    ..leaf()
                },
                "\"docs_1\" REPLICA IDENTITY DEFAULT",
            ),
            (
                Leaf {
                    identity: b'i',
                    key: Some(vec!["other".into()]),
                    ..leaf()
                },
                "REPLICA IDENTITY DEFAULT",
            ),
        ] {
            let reason = refusal(unsuitable).expect("it is refused");
            assert!(reason.contains(remedy), "{reason}");
        }
        let indexed = Leaf {
            identity: b'i',
            key: Some(vec!["id".into()]),
            ..leaf()
        };
        assert_eq!(refusal(indexed), None);
    }
}
