//! Any bytes to the pgoutput decoder: a message or an error, by borrowing alone, and nothing lost on the way.

#![no_main]

use lantern::replication::pgoutput::{DecodeError, Message, TupleData, decode};
use lantern_fuzz::allocations;
use lantern_fuzz::encoder::{encode, flag_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let (decoded, taken) = allocations::count(|| decode(payload));
    assert_eq!(taken.calls, 0, "decoding allocated");
    match decoded {
        Ok(message) => {
            walk(&message);
            survives_a_round_trip(payload, &message);
            ends_where_it_ends(payload);
        }
        // What is said of the error has to be sayable, and short.
        Err(error) => assert!(error.to_string().len() < 100),
    }
});

/// Whatever is counted can be walked, and nothing more.
fn walk(message: &Message<'_>) {
    match message {
        Message::Insert { new, .. } => walk_row(new),
        Message::Update { key, old, new, .. } => {
            [key, old].into_iter().flatten().for_each(walk_row);
            walk_row(new);
        }
        Message::Delete { key, old, .. } => {
            assert!(key.is_some() != old.is_some());
            [key, old].into_iter().flatten().for_each(walk_row);
        }
        Message::Truncate { relations, .. } => {
            assert_eq!(relations.iter().count(), relations.len());
        }
        Message::Relation(body) => {
            let (owned, taken) = allocations::count(|| body.to_owned());
            assert_eq!(owned.columns.len(), body.columns.len());
            assert_eq!(body.columns.iter().count(), body.columns.len());
            // 40 bytes for each column, of which there is one for each ten bytes of input; twice for growing.
            let named = body.namespace.len() + body.name.len();
            let columns = body.columns.iter().map(|column| 40 + column.name.len());
            assert!(taken.peak <= 3 * (named + columns.sum::<usize>()) + 256);
            for column in &owned.columns {
                assert!(owned.column_index(&column.name).is_some());
            }
            assert!(owned.key_indices().all(|index| owned.columns[index].is_key));
        }
        _ => {}
    }
}

fn walk_row(row: &TupleData<'_>) {
    assert_eq!(row.iter().count(), row.len());
    assert_eq!(
        row.iter().last(),
        row.len().checked_sub(1).and_then(|last| row.get(last))
    );
    assert_eq!(row.get(row.len()), None);
    for value in *row {
        let _ = value.as_str();
    }
}

/// Encoding gives the same bytes, but for bits that mean nothing, and the same message again.
fn survives_a_round_trip(payload: &[u8], message: &Message<'_>) {
    let encoded = encode(message);
    assert_eq!(encoded.len(), payload.len());
    let differences = encoded.iter().zip(payload).filter(|(a, b)| a != b);
    assert!(differences.count() <= flag_bytes(message));
    let again = decode(&encoded).map(|message| encode(&message));
    assert_eq!(again.as_ref(), Ok(&encoded));
}

/// A message knows its own end: no beginning of it is one, nor is it with more behind.
fn ends_where_it_ends(payload: &[u8]) {
    for length in (0..payload.len()).rev().take(64) {
        assert_eq!(decode(&payload[..length]), Err(DecodeError::Truncated));
    }
    let longer = [payload, b"\0"].concat();
    assert_eq!(decode(&longer), Err(DecodeError::TrailingBytes(1)));
}
