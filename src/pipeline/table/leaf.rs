//! A partition that holds rows itself, as the catalog describes it.

use super::source_version::SourceVersion;
use crate::postgres::quote::identifier;

/// A leaf of the tree of partitions below a partitioned table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The OID in `pg_class`.
    pub oid: u32,
    /// As the catalog has it, not quoted.
    pub schema: String,
    /// As the catalog has it, not quoted.
    pub name: String,
    /// Its links up to the table, each with the transaction that made it (`pg_inherits.xmin`): a partition that was detached
    /// and attached again has others.
    pub links: String,
    /// It may have been attached after the slot's confirmed position.
    pub is_recent: bool,
    /// `pg_class.relpersistence`: `p` where its changes are in the WAL.
    pub persistence: u8,
    /// `pg_class.relreplident`. A partition has its own, whatever that of the table is.
    pub identity: u8,
    /// The columns of its replica identity, by name; `None` where they are certainly those of the table's primary key.
    pub key: Option<Vec<String>>,
    /// The version of its columns with texts.
    pub source: Option<SourceVersion>,
    /// Whether the role may read all of its rows under its own name. Rights on the table are enough to read them by way of
    /// the table (PostgreSQL manual, "Privileges").
    pub is_readable: bool,
}

impl Leaf {
    /// Schema and name, quoted.
    pub fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}
