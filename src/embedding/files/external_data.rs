//! The files beside a graph that hold its weights.
//!
//! A protobuf message is limited to 2 GiB, so exporters put the weights of larger models into other files ("External
//! Data" in the ONNX documentation). The graph names them, tensor by tensor, by any name. This file finds the names in
//! the graph's own structure, without a copy of the weights that are inside of it:
//!
//! ```text
//! ModelProto ─ graph ─┬─ initializer, sparse_initializer ─ TensorProto ─ external_data ─ (key, value)
//!            │        └─ node ─ attribute ─ t, tensors, sparse_tensor, g, graphs
//!            └ functions ─ node ─ …
//! ```
//!
//! Field numbers are those of `onnx.proto`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Messages within messages. The deepest graphs have a few levels; a file that nests without end is not one.
const MAX_DEPTH: u32 = 64;
/// The longest name or number of an entry.
const MAX_ENTRY_BYTES: u64 = 4096;

/// Why a graph could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It ends within a field.
    #[error("it ends in the middle of the graph")]
    Truncated,
    /// It is not a protobuf message of the graph's kind.
    #[error("it is not an ONNX graph")]
    NotAGraph,
}

/// The places of weights outside of a graph: for each file, by its path from the graph's folder, the length that it
/// must have at least.
pub(crate) type ExternalData = BTreeMap<String, u64>;

/// The kinds of messages that lead to a tensor.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The message in this field, if it may hold a tensor.
    fn field(self, number: u64) -> Option<Message> {
        Some(match (self, number) {
            (Message::Model, 7) => Message::Graph,
            (Message::Model, 25) => Message::Function,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Graph, 5) => Message::Tensor,
            (Message::Graph, 15) => Message::SparseTensor,
            (Message::Node, 5) | (Message::Function, 11) => Message::Attribute,
            (Message::Attribute, 5 | 10) => Message::Tensor,
            (Message::Attribute, 6 | 11) => Message::Graph,
            (Message::Attribute, 22 | 23) => Message::SparseTensor,
            (Message::SparseTensor, 1 | 2) => Message::Tensor,
            _ => return None,
        })
    }
}

/// The field `external_data` of `TensorProto`.
const EXTERNAL_DATA: u64 = 13;

/// Finds the files that a graph keeps weights in.
///
/// # Errors
///
/// If the graph cannot be read to its end.
pub(crate) fn external_data(graph: &Path) -> Result<ExternalData, Malformed> {
    let file = File::open(graph)?;
    let end = file.metadata()?.len();
    let mut scanner = Scanner {
        file: BufReader::new(file),
        position: 0,
        found: ExternalData::new(),
    };
    scanner.message(Message::Model, end, 0)?;
    Ok(scanner.found)
}

struct Scanner {
    file: BufReader<File>,
    position: u64,
    found: ExternalData,
}

/// One entry of `external_data`.
#[derive(Default)]
struct Place {
    location: Option<String>,
    offset: u64,
    length: u64,
}

impl Scanner {
    /// Reads a message up to its end.
    fn message(&mut self, kind: Message, end: u64, depth: u32) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed::NotAGraph);
        }
        let mut place = Place::default();
        while self.position < end {
            let tag = self.varint(end)?;
            let (number, wire_type) = (tag >> 3, tag & 7);
            match wire_type {
                0 => drop(self.varint(end)?),
                1 => self.skip(8, end)?,
                5 => self.skip(4, end)?,
                2 => {
                    let length = self.varint(end)?;
                    let field_end = self.position.checked_add(length);
                    let field_end = field_end
                        .filter(|field_end| *field_end <= end)
                        .ok_or(Malformed::Truncated)?;
                    match kind.field(number) {
                        Some(inner) => self.message(inner, field_end, depth + 1)?,
                        None if matches!(kind, Message::Tensor) && number == EXTERNAL_DATA => {
                            self.entry(&mut place, field_end)?;
                        }
                        None => self.skip(length, end)?,
                    }
                }
                _ => return Err(Malformed::NotAGraph),
            }
        }
        if let Some(location) = place.location {
            let needed = self.found.entry(location).or_default();
            *needed = (*needed).max(place.offset.saturating_add(place.length));
        }
        Ok(())
    }

    /// Reads a `StringStringEntryProto`: `key` is field 1, `value` is field 2.
    fn entry(&mut self, place: &mut Place, end: u64) -> Result<(), Malformed> {
        let (mut key, mut value) = (String::new(), String::new());
        while self.position < end {
            let tag = self.varint(end)?;
            let length = self.varint(end)?;
            let text = self.text(length, end)?;
            match tag {
                0x0a => key = text,
                0x12 => value = text,
                _ => return Err(Malformed::NotAGraph),
            }
        }
        match key.as_str() {
            "location" => place.location = Some(value),
            "offset" => place.offset = value.parse().unwrap_or(0),
            "length" => place.length = value.parse().unwrap_or(0),
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, length: u64, end: u64) -> Result<String, Malformed> {
        if length > end - self.position {
            return Err(Malformed::Truncated);
        }
        if length > MAX_ENTRY_BYTES {
            return Err(Malformed::NotAGraph);
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        self.position += length;
        String::from_utf8(bytes).map_err(|_| Malformed::NotAGraph)
    }

    fn skip(&mut self, length: u64, end: u64) -> Result<(), Malformed> {
        if length > end - self.position {
            return Err(Malformed::Truncated);
        }
        let distance = i64::try_from(length).map_err(|_| Malformed::Truncated)?;
        self.file.seek_relative(distance)?;
        self.position += length;
        Ok(())
    }

    /// A number in groups of seven bits, the lowest first.
    fn varint(&mut self, end: u64) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if self.position >= end {
                return Err(Malformed::Truncated);
            }
            let byte = *self.file.fill_buf()?.first().ok_or(Malformed::Truncated)?;
            self.file.consume(1);
            self.position += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed::NotAGraph)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A field of wire type 2. All fields of these tests are shorter than 128 bytes, or their length takes two bytes.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        if number > 15 {
            bytes = vec![(number << 3 | 2) | 0x80, number >> 4];
        }
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [bytes, content.to_vec()].concat()
    }

    fn entry(key: &str, value: &str) -> Vec<u8> {
        let entry = [field(1, key.as_bytes()), field(2, value.as_bytes())].concat();
        field(13, &entry)
    }

    /// A tensor with its data in a file.
    fn tensor(location: &str, offset: u64, length: u64) -> Vec<u8> {
        [
            vec![0x08, 3, 0x10, 1],
            entry("location", location),
            entry("offset", &offset.to_string()),
            entry("length", &length.to_string()),
            vec![0x70, 1],
        ]
        .concat()
    }

    fn found(graph: &[u8]) -> Result<ExternalData, Malformed> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(graph).unwrap();
        external_data(file.path())
    }

    #[test]
    fn files_are_found_wherever_a_graph_may_name_them() {
        let constant = field(5, &field(5, &tensor("constant.bin", 0, 4)));
        let subgraph = field(5, &field(6, &field(5, &tensor("branch.bin", 0, 4))));
        let sparse = field(1, &tensor("sparse.bin", 0, 4));
        let graph = [
            field(2, b"name"),
            field(1, &constant),
            field(1, &subgraph),
            field(5, &tensor("weights.bin", 0, 12)),
            field(5, &tensor("weights.bin", 12, 200)),
            // Weights inside of the graph.
            field(5, &field(9, &[0xff; 300])),
            field(15, &sparse),
        ]
        .concat();
        let function = field(7, &constant);
        let model = [vec![0x08, 8], field(7, &graph), field(25, &function)].concat();
        let found = found(&model).unwrap();
        let expected = [
            ("branch.bin", 4),
            ("constant.bin", 4),
            ("sparse.bin", 4),
            ("weights.bin", 212),
        ];
        let found: Vec<(&str, u64)> = found.iter().map(|(name, size)| (&**name, *size)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_that_was_cut_or_is_no_graph_is_told_from_one() {
        let model = field(7, &field(5, &tensor("weights.bin", 0, 12)));
        assert_eq!(found(&model).unwrap().len(), 1);
        for length in 1..model.len() {
            assert!(
                matches!(found(&model[..length]), Err(Malformed::Truncated)),
                "{length}"
            );
        }
        let text = b"not a graph at all, but text";
        assert!(found(text).is_err());
        let nested = (0..100).fold(Vec::new(), |inner, _| {
            field(1, &field(5, &field(6, &inner)))
        });
        assert!(matches!(
            found(&field(7, &nested)),
            Err(Malformed::NotAGraph)
        ));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = found(&bytes);
        }
    }
}
