//! The decoder against an encoder written from the PostgreSQL manual ("Logical Replication Message Formats"), and
//! against random bytes.

use lantern::replication::Lsn;
use lantern::replication::pgoutput::{
    Message, RelationBody, RelationId, ReplicaIdentity, Timestamp, TupleData, Value, decode,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    UnchangedToast,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

type Row = Vec<Cell>;

/// The row before a change: `K` for the key alone, `O` for all of it.
#[derive(Debug, Clone, PartialEq)]
enum Old {
    Key(Row),
    Whole(Row),
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    is_key: bool,
    name: String,
    type_oid: u32,
    type_modifier: i32,
}

#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Begin {
        final_lsn: u64,
        time: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
        time: i64,
    },
    Origin {
        lsn: u64,
        name: String,
    },
    Relation {
        id: u32,
        namespace: String,
        name: String,
        identity: u8,
        columns: Vec<Column>,
    },
    Type {
        oid: u32,
        namespace: String,
        name: String,
    },
    Insert {
        relation: u32,
        new: Row,
    },
    Update {
        relation: u32,
        old: Option<Old>,
        new: Row,
    },
    Delete {
        relation: u32,
        old: Old,
    },
    Truncate {
        relations: Vec<u32>,
        cascade: bool,
        restart_identity: bool,
    },
    Logical {
        transactional: bool,
        lsn: u64,
        prefix: String,
        content: Vec<u8>,
    },
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn bytes(mut self, bytes: &[u8]) -> Encoder {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(self, byte: u8) -> Encoder {
        self.bytes(&[byte])
    }

    fn int16(self, number: usize) -> Encoder {
        self.bytes(&i16::try_from(number).unwrap().to_be_bytes())
    }

    fn int32(self, number: usize) -> Encoder {
        self.bytes(&i32::try_from(number).unwrap().to_be_bytes())
    }

    fn string(self, text: &str) -> Encoder {
        self.bytes(text.as_bytes()).byte(0)
    }

    fn row(self, row: &Row) -> Encoder {
        row.iter()
            .fold(self.int16(row.len()), |encoder, cell| match cell {
                Cell::Null => encoder.byte(b'n'),
                Cell::UnchangedToast => encoder.byte(b'u'),
                Cell::Text(bytes) => encoder.byte(b't').int32(bytes.len()).bytes(bytes),
                Cell::Binary(bytes) => encoder.byte(b'b').int32(bytes.len()).bytes(bytes),
            })
    }

    fn old(self, old: &Old) -> Encoder {
        match old {
            Old::Key(row) => self.byte(b'K').row(row),
            Old::Whole(row) => self.byte(b'O').row(row),
        }
    }
}

fn encode(sent: &Sent) -> Vec<u8> {
    let start = |tag: u8| Encoder::default().byte(tag);
    let encoder = match sent {
        Sent::Begin {
            final_lsn,
            time,
            xid,
        } => start(b'B')
            .bytes(&final_lsn.to_be_bytes())
            .bytes(&time.to_be_bytes())
            .bytes(&xid.to_be_bytes()),
        Sent::Commit {
            commit_lsn,
            end_lsn,
            time,
        } => start(b'C')
            .byte(0)
            .bytes(&commit_lsn.to_be_bytes())
            .bytes(&end_lsn.to_be_bytes())
            .bytes(&time.to_be_bytes()),
        Sent::Origin { lsn, name } => start(b'O').bytes(&lsn.to_be_bytes()).string(name),
        Sent::Relation {
            id,
            namespace,
            name,
            identity,
            columns,
        } => {
            let head = start(b'R')
                .bytes(&id.to_be_bytes())
                .string(namespace)
                .string(name);
            columns.iter().fold(
                head.byte(*identity).int16(columns.len()),
                |encoder, column| {
                    encoder
                        .byte(column.is_key.into())
                        .string(&column.name)
                        .bytes(&column.type_oid.to_be_bytes())
                        .bytes(&column.type_modifier.to_be_bytes())
                },
            )
        }
        Sent::Type {
            oid,
            namespace,
            name,
        } => start(b'Y')
            .bytes(&oid.to_be_bytes())
            .string(namespace)
            .string(name),
        Sent::Insert { relation, new } => start(b'I')
            .bytes(&relation.to_be_bytes())
            .byte(b'N')
            .row(new),
        Sent::Update { relation, old, new } => {
            let head = start(b'U').bytes(&relation.to_be_bytes());
            old.iter().fold(head, Encoder::old).byte(b'N').row(new)
        }
        Sent::Delete { relation, old } => start(b'D').bytes(&relation.to_be_bytes()).old(old),
        Sent::Truncate {
            relations,
            cascade,
            restart_identity,
        } => {
            let options = u8::from(*cascade) | u8::from(*restart_identity) << 1;
            let head = start(b'T').int32(relations.len()).byte(options);
            relations
                .iter()
                .fold(head, |encoder, id| encoder.bytes(&id.to_be_bytes()))
        }
        Sent::Logical {
            transactional,
            lsn,
            prefix,
            content,
        } => start(b'M')
            .byte((*transactional).into())
            .bytes(&lsn.to_be_bytes())
            .string(prefix)
            .int32(content.len())
            .bytes(content),
    };
    encoder.0
}

/// Reads every field of a decoded message.
fn walk(message: Message<'_>) -> Sent {
    match message {
        Message::Begin {
            final_lsn: Lsn(final_lsn),
            commit_time: Timestamp(time),
            xid,
        } => Sent::Begin {
            final_lsn,
            time,
            xid,
        },
        Message::Commit {
            commit_lsn: Lsn(commit_lsn),
            end_lsn: Lsn(end_lsn),
            commit_time: Timestamp(time),
        } => Sent::Commit {
            commit_lsn,
            end_lsn,
            time,
        },
        Message::Origin {
            commit_lsn: Lsn(lsn),
            name,
        } => Sent::Origin {
            lsn,
            name: name.to_owned(),
        },
        Message::Relation(body) => walk_relation(body),
        Message::Type {
            oid,
            namespace,
            name,
        } => Sent::Type {
            oid,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        Message::Insert {
            relation: RelationId(relation),
            new,
        } => Sent::Insert {
            relation,
            new: walk_row(new),
        },
        Message::Update {
            relation: RelationId(relation),
            key,
            old,
            new,
        } => Sent::Update {
            relation,
            old: walk_old(key, old),
            new: walk_row(new),
        },
        Message::Delete {
            relation: RelationId(relation),
            key,
            old,
        } => Sent::Delete {
            relation,
            old: walk_old(key, old).expect("a key or a row"),
        },
        Message::Truncate {
            relations,
            cascade,
            restart_identity,
        } => {
            let relations: Vec<u32> = relations.iter().map(|RelationId(id)| id).collect();
            Sent::Truncate {
                relations,
                cascade,
                restart_identity,
            }
        }
        Message::LogicalMessage {
            transactional,
            lsn: Lsn(lsn),
            prefix,
            content,
        } => Sent::Logical {
            transactional,
            lsn,
            prefix: prefix.to_owned(),
            content: content.to_vec(),
        },
    }
}

fn walk_relation(body: RelationBody<'_>) -> Sent {
    assert_eq!(body.columns.iter().count(), body.columns.len());
    let relation = body.to_owned();
    for (index, column) in relation.columns.iter().enumerate() {
        assert!(
            relation
                .column_index(&column.name)
                .is_some_and(|first| first <= index)
        );
    }
    let column = |column: lantern::replication::pgoutput::ColumnSchema| Column {
        is_key: column.is_key,
        name: column.name,
        type_oid: column.type_oid,
        type_modifier: column.type_modifier,
    };
    Sent::Relation {
        id: relation.id.0,
        namespace: relation.namespace,
        name: relation.name,
        identity: match relation.replica_identity {
            ReplicaIdentity::Default => b'd',
            ReplicaIdentity::Nothing => b'n',
            ReplicaIdentity::Full => b'f',
            ReplicaIdentity::Index => b'i',
        },
        columns: relation.columns.into_iter().map(column).collect(),
    }
}

fn walk_old(key: Option<TupleData<'_>>, old: Option<TupleData<'_>>) -> Option<Old> {
    match (key, old) {
        (Some(_), Some(_)) => panic!("both a key and a whole old row"),
        (Some(key), None) => Some(Old::Key(walk_row(key))),
        (None, Some(old)) => Some(Old::Whole(walk_row(old))),
        (None, None) => None,
    }
}

fn walk_row(row: TupleData<'_>) -> Row {
    assert_eq!(row.iter().len(), row.len());
    assert_eq!(row.is_empty(), row.iter().next().is_none());
    assert_eq!(row.get(row.len()), None);
    let cells: Row = row
        .iter()
        .enumerate()
        .inspect(|&(index, value)| assert_eq!(row.get(index), Some(value)))
        .map(|(_, value)| match value {
            Value::Null => Cell::Null,
            Value::UnchangedToast => Cell::UnchangedToast,
            Value::Text(bytes) => Cell::Text(bytes.to_vec()),
            Value::Binary(bytes) => Cell::Binary(bytes.to_vec()),
        })
        .collect();
    assert_eq!(cells.len(), row.len());
    cells
}

fn row() -> impl Strategy<Value = Row> {
    let bytes = || vec(any::<u8>(), 0..40);
    let cell = prop_oneof![
        Just(Cell::Null),
        Just(Cell::UnchangedToast),
        bytes().prop_map(Cell::Text),
        bytes().prop_map(Cell::Binary),
    ];
    vec(cell, 0..12)
}

fn old() -> impl Strategy<Value = Old> {
    prop_oneof![row().prop_map(Old::Key), row().prop_map(Old::Whole)]
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,20}"
}

fn column() -> impl Strategy<Value = Column> {
    (any::<bool>(), name(), any::<u32>(), any::<i32>()).prop_map(
        |(is_key, name, type_oid, type_modifier)| Column {
            is_key,
            name,
            type_oid,
            type_modifier,
        },
    )
}

fn message() -> impl Strategy<Value = Sent> {
    use Sent::*;
    let (lsn, time, id) = (any::<u64>, any::<i64>, any::<u32>);
    let begin = (lsn(), time(), id());
    let commit = (lsn(), lsn(), time());
    let origin = (lsn(), name());
    let relation = (
        id(),
        name(),
        name(),
        select(b"dnfi".as_slice()),
        vec(column(), 0..8),
    );
    let custom_type = (id(), name(), name());
    let insert = (id(), row());
    let update = (id(), option::of(old()), row());
    let delete = (id(), old());
    let truncate = (vec(id(), 0..6), any::<bool>(), any::<bool>());
    let logical = (any::<bool>(), lsn(), name(), vec(any::<u8>(), 0..40));
    prop_oneof![
        begin.prop_map(|(final_lsn, time, xid)| Begin {
            final_lsn,
            time,
            xid
        }),
        commit.prop_map(|(commit_lsn, end_lsn, time)| Commit {
            commit_lsn,
            end_lsn,
            time
        }),
        origin.prop_map(|(lsn, name)| Origin { lsn, name }),
        relation.prop_map(|(id, namespace, name, identity, columns)| Relation {
            id,
            namespace,
            name,
            identity,
            columns
        }),
        custom_type.prop_map(|(oid, namespace, name)| Type {
            oid,
            namespace,
            name
        }),
        insert.prop_map(|(relation, new)| Insert { relation, new }),
        update.prop_map(|(relation, old, new)| Update { relation, old, new }),
        delete.prop_map(|(relation, old)| Delete { relation, old }),
        truncate.prop_map(|(relations, cascade, restart_identity)| Truncate {
            relations,
            cascade,
            restart_identity
        }),
        logical.prop_map(|(transactional, lsn, prefix, content)| Logical {
            transactional,
            lsn,
            prefix,
            content
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_message_decodes_to_what_was_encoded(sent in message()) {
        let bytes = encode(&sent);
        prop_assert_eq!(walk(decode(&bytes).unwrap()), sent);
    }

    #[test]
    fn a_message_that_is_too_short_or_too_long_is_an_error(sent in message(), cut: Index, more: u8) {
        let mut bytes = encode(&sent);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(more);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn a_message_with_wrong_bytes_never_panics(
        sent in message(),
        wrong in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode(&sent);
        for (place, byte) in wrong {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(message) = decode(&bytes) {
            walk(message);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(tag in select(b"BCORYIUDTM".as_slice()), rest in vec(any::<u8>(), 0..200)) {
        for bytes in [rest.clone(), [vec![tag], rest].concat()] {
            if let Ok(message) = decode(&bytes) {
                walk(message);
            }
        }
    }
}
