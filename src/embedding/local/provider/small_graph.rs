//! A graph that is small enough to be written here: a product of two matrices. Whether a provider runs it shows whether
//! its device is there.
//!
//! The bytes are a `ModelProto` of onnx.proto, in the wire format of protocol buffers.

/// Rows and columns of the matrices.
pub(crate) const SIZE: usize = 4;
/// The input, a matrix of floats.
pub(crate) const INPUT: &str = "x";
/// The output: the input times [`factor`].
pub(crate) const OUTPUT: &str = "y";

/// `TensorProto.DataType.FLOAT`.
const FLOAT: u64 = 1;

/// The matrix that the graph multiplies by, row by row.
pub(crate) fn factor() -> Vec<f32> {
    (1..=SIZE * SIZE).map(|value| value as f32).collect()
}

/// The graph's file.
pub(crate) fn bytes() -> Vec<u8> {
    let node = [
        text(1, INPUT),
        text(1, "w"),
        text(2, OUTPUT),
        text(4, "MatMul"),
    ]
    .concat();
    let graph = [
        message(1, &node),
        text(2, "small"),
        message(5, &constant()),
        message(11, &matrix(INPUT)),
        message(12, &matrix(OUTPUT)),
    ];
    let opset = number(2, 13);
    [
        number(1, 8),
        message(7, &graph.concat()),
        message(8, &opset),
    ]
    .concat()
}

/// A `TensorProto`.
fn constant() -> Vec<u8> {
    let raw: Vec<u8> = factor().into_iter().flat_map(f32::to_le_bytes).collect();
    let size = number(1, SIZE as u64);
    [
        size.clone(),
        size,
        number(2, FLOAT),
        text(8, "w"),
        message(9, &raw),
    ]
    .concat()
}

/// A `ValueInfoProto`.
fn matrix(name: &str) -> Vec<u8> {
    let dimension = message(1, &number(1, SIZE as u64));
    let shape = [dimension.clone(), dimension].concat();
    let tensor = [number(1, FLOAT), message(2, &shape)].concat();
    [text(1, name), message(2, &message(1, &tensor))].concat()
}

/// A field of one number.
fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    bytes.extend(varint(value));
    bytes
}

fn text(field: u8, value: &str) -> Vec<u8> {
    message(field, value.as_bytes())
}

/// A field of bytes, or of another message.
fn message(field: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | 2];
    bytes.extend(varint(value.len() as u64));
    bytes.extend(value);
    bytes
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
