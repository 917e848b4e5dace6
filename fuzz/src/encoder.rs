//! The inverse of the decoder, written from the documentation (protocol-logicalrep-message-formats) and not from it.

use lantern::replication::pgoutput::{
    ColumnBody, Message, RelationBody, ReplicaIdentity, TupleData, Value,
};

/// The bytes of `message`, with every flag that has no meaning in protocol version 1 as zero.
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match *message {
        Message::Begin {
            final_lsn,
            commit_time,
            xid,
        } => {
            out.push(b'B');
            out.extend(final_lsn.0.to_be_bytes());
            out.extend(commit_time.0.to_be_bytes());
            out.extend(xid.to_be_bytes());
        }
        Message::Commit {
            commit_lsn,
            end_lsn,
            commit_time,
        } => {
            out.extend(*b"C\0");
            out.extend(commit_lsn.0.to_be_bytes());
            out.extend(end_lsn.0.to_be_bytes());
            out.extend(commit_time.0.to_be_bytes());
        }
        Message::Origin { commit_lsn, name } => {
            out.push(b'O');
            out.extend(commit_lsn.0.to_be_bytes());
            string(name, &mut out);
        }
        Message::Relation(body) => relation(&body, &mut out),
        Message::Type {
            oid,
            namespace,
            name,
        } => {
            out.push(b'Y');
            out.extend(oid.to_be_bytes());
            string(namespace, &mut out);
            string(name, &mut out);
        }
        Message::Insert { relation, new } => {
            out.push(b'I');
            out.extend(relation.0.to_be_bytes());
            tuple(b'N', new, &mut out);
        }
        Message::Update {
            relation,
            key,
            old,
            new,
        } => {
            out.push(b'U');
            out.extend(relation.0.to_be_bytes());
            old_tuple(key, old, &mut out);
            tuple(b'N', new, &mut out);
        }
        Message::Delete { relation, key, old } => {
            out.push(b'D');
            out.extend(relation.0.to_be_bytes());
            old_tuple(key, old, &mut out);
        }
        Message::Truncate {
            relations,
            cascade,
            restart_identity,
        } => {
            out.push(b'T');
            out.extend((relations.len() as u32).to_be_bytes());
            out.push(u8::from(cascade) | u8::from(restart_identity) << 1);
            relations
                .iter()
                .for_each(|relation| out.extend(relation.0.to_be_bytes()));
        }
        Message::LogicalMessage {
            transactional,
            lsn,
            prefix,
            content,
        } => {
            out.push(b'M');
            out.push(transactional.into());
            out.extend(lsn.0.to_be_bytes());
            string(prefix, &mut out);
            out.extend((content.len() as u32).to_be_bytes());
            out.extend(content);
        }
    }
    out
}

/// How many bytes of `message` are flags of which the decoder may drop bits.
pub fn flag_bytes(message: &Message<'_>) -> usize {
    match message {
        Message::Commit { .. } | Message::Truncate { .. } | Message::LogicalMessage { .. } => 1,
        Message::Relation(body) => body.columns.len(),
        _ => 0,
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend(text.as_bytes());
    out.push(0);
}

fn relation(body: &RelationBody<'_>, out: &mut Vec<u8>) {
    out.push(b'R');
    out.extend(body.id.0.to_be_bytes());
    string(body.namespace, out);
    string(body.name, out);
    out.push(match body.replica_identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    });
    out.extend((body.columns.len() as u16).to_be_bytes());
    for ColumnBody {
        is_key,
        name,
        type_oid,
        type_modifier,
    } in body.columns.iter()
    {
        out.push(is_key.into());
        string(name, out);
        out.extend(type_oid.to_be_bytes());
        out.extend(type_modifier.to_be_bytes());
    }
}

fn old_tuple(key: Option<TupleData<'_>>, old: Option<TupleData<'_>>, out: &mut Vec<u8>) {
    assert!(key.is_none() || old.is_none(), "a key and an old row");
    if let Some(row) = key {
        tuple(b'K', row, out);
    }
    if let Some(row) = old {
        tuple(b'O', row, out);
    }
}

fn tuple(kind: u8, row: TupleData<'_>, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend((row.len() as u16).to_be_bytes());
    for value in row {
        let (kind, bytes) = match value {
            Value::Null => (b'n', None),
            Value::UnchangedToast => (b'u', None),
            Value::Text(bytes) => (b't', Some(bytes)),
            Value::Binary(bytes) => (b'b', Some(bytes)),
        };
        out.push(kind);
        if let Some(bytes) = bytes {
            out.extend((bytes.len() as u32).to_be_bytes());
            out.extend(bytes);
        }
    }
}
