//! Pooling inside of a graph, for a device: `[rows, width, hidden]` token states need not be copied back, only a vector
//! for each text and mode.
//!
//! ```text
//!  states [rows, width, hidden] ─────┐
//!                                    MatMul ──▶ pooled [rows, modes, hidden]
//!  weights [rows, modes, width] ─────┘
//! ```
//!
//! Every mode but the largest value is a weighted sum over the tokens, and the weights depend on lengths alone. So they are
//! an input, and one product serves all modes, prompts that are not pooled, and padding on either side. It reads the
//! states once, without a masked copy of them, and its operators are the same in all versions of ONNX. Normalizing takes
//! a fraction of a microsecond here, in double precision, and differs between jobs of one model: it stays here.
//!
//! A `ModelProto` is a message of protocol buffers, where a message that is written twice is merged: fields of a graph behind
//! the file's own are further nodes of it.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use super::wire::{message, node, number, tensor, text};

/// The input.
pub(crate) const WEIGHTS: &str = "lantern_pooling_weights";
/// The output.
pub(crate) const POOLED: &str = "lantern_pooled";
/// The same, for ONNX Runtime.
pub(crate) const POOLED_NAME: &CStr = c"lantern_pooled";
const SINGLE: &str = "lantern_single_precision_states";

/// `TensorProto.DataType` and `AttributeProto.AttributeType`.
const FLOAT: u64 = 1;
const INT: u64 = 2;

/// What is behind the bytes of a graph's file.
pub(crate) struct PoolingNodes {
    bytes: Vec<u8>,
}

impl PoolingNodes {
    /// For a graph with this output of token states, which is in single precision or not, and these sizes of
    /// `[rows, modes, width]`.
    pub(crate) fn new(states: &str, is_single: bool, sizes: [Option<usize>; 3]) -> Self {
        // In half precision a sum of many tokens would be rounded once for each.
        let (cast, states) = match is_single {
            true => (Vec::new(), states),
            false => (message(1, &cast_to_single(states)), SINGLE),
        };
        let graph = [
            cast,
            message(1, &node("MatMul", &[WEIGHTS, states], POOLED)),
            message(11, &tensor(WEIGHTS, FLOAT, &sizes)),
            message(12, &tensor(POOLED, FLOAT, &[sizes[0], sizes[1], None])),
        ];
        Self {
            bytes: message(7, &graph.concat()),
        }
    }

    /// The graph of this file, with these nodes.
    pub(crate) fn behind(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = std::fs::read(path)?;
        bytes.extend(&self.bytes);
        Ok(bytes)
    }
}

fn cast_to_single(states: &str) -> Vec<u8> {
    let to = [text(1, "to"), number(3, FLOAT), number(20, INT)].concat();
    [node("Cast", &[states], SINGLE), message(5, &to)].concat()
}
