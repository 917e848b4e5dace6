//! Relation messages: what the row messages leave out about a table.
//!
//! PostgreSQL manual, "Logical Replication Message Formats", section Relation.

use super::reader::{DecodeError, Reader};

/// The number by which row messages name their table: its OID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationId(pub u32);

/// Which columns identify the old version of a row in Update and Delete (`pg_class.relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// Those of the primary key, if there is one.
    Default,
    /// None.
    Nothing,
    /// All.
    Full,
    /// Those of one unique index.
    Index,
}

impl ReplicaIdentity {
    fn read(reader: &mut Reader<'_>) -> Result<ReplicaIdentity, DecodeError> {
        match reader.u8()? {
            b'd' => Ok(ReplicaIdentity::Default),
            b'n' => Ok(ReplicaIdentity::Nothing),
            b'f' => Ok(ReplicaIdentity::Full),
            b'i' => Ok(ReplicaIdentity::Index),
            other => Err(DecodeError::UnknownReplicaIdentity(other)),
        }
    }
}

/// A Relation message. Borrows; [`RelationSchema`] is the owned form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationBody<'a> {
    /// The number that row messages use.
    pub id: RelationId,
    /// The schema of the table; empty for `pg_catalog`.
    pub namespace: &'a str,
    /// The name of the table.
    pub name: &'a str,
    /// Which columns identify old rows.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of the values in rows.
    pub columns: Columns<'a>,
}

impl<'a> RelationBody<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<RelationBody<'a>, DecodeError> {
        Ok(RelationBody {
            id: RelationId(reader.u32()?),
            namespace: reader.string()?,
            name: reader.string()?,
            replica_identity: ReplicaIdentity::read(reader)?,
            columns: Columns::read(reader)?,
        })
    }

    /// A copy to keep until the next Relation message about the same table.
    pub fn to_owned(&self) -> RelationSchema {
        RelationSchema {
            id: self.id,
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            replica_identity: self.replica_identity,
            columns: self.columns.iter().map(ColumnSchema::from).collect(),
        }
    }
}

/// The columns of a Relation message. Iterating does not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Columns<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Columns<'a>, DecodeError> {
        let count = reader.u16()?;
        let bytes = reader.span(|reader| {
            for _ in 0..count {
                ColumnBody::read(reader)?;
            }
            Ok(())
        })?;
        Ok(Columns { count, bytes })
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.count.into()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns, in the order of the values in rows.
    pub fn iter(&self) -> impl Iterator<Item = ColumnBody<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        // The bytes were checked when the message was decoded, so an error can only be their end.
        std::iter::from_fn(move || ColumnBody::read(&mut reader).ok())
    }
}

/// A column of a Relation message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnBody<'a> {
    /// Whether the column is part of the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: &'a str,
    /// The OID of its type.
    pub type_oid: u32,
    /// `atttypmod`; -1 for none.
    pub type_modifier: i32,
}

impl<'a> ColumnBody<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<ColumnBody<'a>, DecodeError> {
        Ok(ColumnBody {
            is_key: reader.u8()? & 1 != 0,
            name: reader.string()?,
            type_oid: reader.u32()?,
            type_modifier: reader.i32()?,
        })
    }
}

/// A table as its latest Relation message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationSchema {
    /// The number that row messages use.
    pub id: RelationId,
    /// The schema of the table; empty for `pg_catalog`.
    pub namespace: String,
    /// The name of the table.
    pub name: String,
    /// Which columns identify old rows.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of the values in rows.
    pub columns: Vec<ColumnSchema>,
}

/// A column of a [`RelationSchema`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSchema {
    /// Whether the column is part of the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: String,
    /// The OID of its type.
    pub type_oid: u32,
    /// `atttypmod`; -1 for none.
    pub type_modifier: i32,
}

impl From<ColumnBody<'_>> for ColumnSchema {
    fn from(column: ColumnBody<'_>) -> ColumnSchema {
        ColumnSchema {
            is_key: column.is_key,
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
        }
    }
}

impl RelationSchema {
    /// The index of column `name` in rows.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The indices of the replica identity in rows.
    pub fn key_indices(&self) -> impl Iterator<Item = usize> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.is_key)
            .map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, decode};
    use super::*;

    #[test]
    fn a_schema_finds_its_columns_by_name() {
        let payload = b"R\0\0\0\x09public\0docs\0d\0\x02\x01id\0\0\0\0\x14\xFF\xFF\xFF\xFF\0body\0\0\0\0\x19\0\0\0\x2A";
        let Message::Relation(body) = decode(payload).unwrap() else {
            panic!("a Relation")
        };
        assert_eq!(body.columns.len(), 2);
        let relation = body.to_owned();
        assert_eq!(
            (relation.namespace.as_str(), relation.name.as_str()),
            ("public", "docs")
        );
        assert_eq!(relation.replica_identity, ReplicaIdentity::Default);
        assert_eq!(relation.column_index("body"), Some(1));
        assert_eq!(relation.column_index("BODY"), None);
        assert_eq!(relation.key_indices().collect::<Vec<_>>(), [0]);
        assert_eq!(relation.columns[0].type_modifier, -1);
        assert_eq!(relation.columns[1].type_modifier, 42);
    }

    #[test]
    fn an_unknown_replica_identity_is_an_error() {
        assert_eq!(
            decode(b"R\0\0\0\x09\0t\0z\0\0"),
            Err(DecodeError::UnknownReplicaIdentity(b'z'))
        );
    }
}
