//! A graph that is small enough to be written here: a product of two matrices. Whether a provider runs it shows whether
//! its device is there.
//!
//! The bytes are a `ModelProto` of onnx.proto.

use crate::embedding::local::wire::{message, node, number, tensor, text};

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
    let size = Some(SIZE);
    let matrix = |name| tensor(name, FLOAT, &[size, size]);
    let graph = [
        message(1, &node("MatMul", &[INPUT, "w"], OUTPUT)),
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
