//! Writes parts of an ONNX graph: messages in the wire format of protocol buffers, with the field numbers of `onnx.proto`.

/// A field of one number.
pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

pub(crate) fn text(field: u64, value: &str) -> Vec<u8> {
    message(field, value.as_bytes())
}

/// A field of bytes, or of another message.
pub(crate) fn message(field: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = [varint(field << 3 | 2), varint(value.len() as u64)].concat();
    bytes.extend(value);
    bytes
}

/// A `NodeProto`.
pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = inputs.iter().flat_map(|input| text(1, input)).collect();
    bytes.extend(text(2, output));
    bytes.extend(text(4, operator));
    bytes
}

/// A `ValueInfoProto` of a tensor with elements of this `TensorProto.DataType`. A dimension may have any size where none is
/// given.
pub(crate) fn tensor(name: &str, element: u64, dimensions: &[Option<usize>]) -> Vec<u8> {
    let dimension = |size: &Option<usize>| {
        let size = size.map_or_else(Vec::new, |size| number(1, size as u64));
        message(1, &size)
    };
    let shape: Vec<u8> = dimensions.iter().flat_map(dimension).collect();
    let tensor = [number(1, element), message(2, &shape)].concat();
    [text(1, name), message(2, &message(1, &tensor))].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of "Encoding" in the documentation of protocol buffers.
    #[test]
    fn numbers_and_texts_are_encoded_as_documented() {
        assert_eq!(number(1, 150), [0x08, 0x96, 0x01]);
        assert_eq!(text(2, "testing"), b"\x12\x07testing");
        assert_eq!(number(20, 2), [0xa0, 0x01, 0x02]);
    }
}
