//! How ONNX Runtime divides a graph between a provider and the processor.
//!
//! What a provider does not take is computed by the processor, without a word. The nodes that compute sizes and places
//! belong there: they are a few numbers, which the processor wants to know. A product of matrices does not. ONNX Runtime
//! lists all nodes in its log at the level "verbose" (`VerifyEachNodeIsAssignedToAnEp` in
//! `onnxruntime/core/framework/session_state.cc`); versions before 1.24 tell it in no other way.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;

use super::kind::ProviderKind;

/// The name of the processor's provider in ONNX Runtime.
const CPU: &str = "[CPUExecutionProvider]";
/// What stands before the name of a provider.
const PLACED: &str = "placed on ";
/// What the names of operators contain that compute much.
const COSTLY: [&str; 10] = [
    "MatMul",
    "Gemm",
    "Conv",
    "Attention",
    "Normalization",
    "Softmax",
    "Gelu",
    "Einsum",
    "Rotary",
    "Erf",
];

/// How the nodes of a graph are divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    pub nodes: usize,
    /// Nodes that the processor computes.
    pub on_processor: usize,
    /// Their operators, as far as they compute much, with the number of nodes; empty where no single node is listed.
    costly: BTreeMap<String, usize>,
}

/// What ONNX Runtime says about nodes while it makes a session.
#[derive(Clone, Default)]
pub(crate) struct PlacementLines(Arc<Mutex<Vec<String>>>);

impl PlacementLines {
    /// Collects what is said while this builder makes a session. Afterwards the session is as talkative: drop it.
    pub(crate) fn listen(&self, builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        let lines = self.0.clone();
        let listen = move |_: LogLevel, _: &str, _: &str, _: &str, message: &str| {
            let is_node = message.starts_with("  ");
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            if message.contains(PLACED) || is_node && !lines.is_empty() {
                lines.push(message.to_owned());
            }
        };
        Ok(builder
            .with_logger(Arc::new(listen))?
            .with_log_level(LogLevel::Verbose)?)
    }

    /// What was said, once the session is there.
    pub(crate) fn placement(&self) -> Option<Placement> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Placement::read(&lines)
    }
}

impl Placement {
    /// `None` where the lines are not as they are known.
    fn read(lines: &[String]) -> Option<Self> {
        let (mut nodes, mut on_processor, mut costly) = (0, 0, BTreeMap::new());
        // Lines of single nodes that belong to the processor.
        let mut listed = 0;
        for line in lines {
            if let Some((_, placed)) = line.split_once(PLACED) {
                let (_, count) = placed.rsplit_once("Number of nodes: ")?;
                let count: usize = count.trim().parse().ok()?;
                listed = if placed.starts_with(CPU) { count } else { 0 };
                nodes += count;
                on_processor += listed;
            } else if listed > 0 {
                listed -= 1;
                let operator = line.split_whitespace().next()?;
                if COSTLY.iter().any(|part| operator.contains(part)) {
                    *costly.entry(operator.to_owned()).or_default() += 1;
                }
            }
        }
        (nodes > 0).then_some(Self {
            nodes,
            on_processor,
            costly,
        })
    }

    /// Whether the processor computes more than sizes and places.
    pub(crate) fn is_divided(&self) -> bool {
        !self.costly.is_empty() || self.on_processor == self.nodes
    }
}

/// What the processor computes, such as `MatMul (12), Softmax (2)`.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.on_processor == self.nodes {
            return f.write_str("everything");
        }
        let costly = self.costly.iter();
        let costly: Vec<String> = costly
            .map(|(name, count)| format!("{name} ({count})"))
            .collect();
        f.write_str(&costly.join(", "))
    }
}

/// Whether a session for that costs little. These providers compile the graph, which may take minutes.
pub(crate) fn is_cheap(kind: ProviderKind) -> bool {
    !matches!(
        kind,
        ProviderKind::TensorRt
            | ProviderKind::TensorRtRtx
            | ProviderKind::MiGraphX
            | ProviderKind::Qnn
            | ProviderKind::Cann
            | ProviderKind::Vitis
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Placement> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        Placement::read(&lines)
    }

    #[test]
    fn a_graph_that_the_provider_takes_whole_is_not_divided() {
        let line = " All nodes placed on [CUDAExecutionProvider]. Number of nodes: 138";
        let placement = read(line).unwrap();
        assert_eq!((placement.nodes, placement.on_processor), (138, 0));
        assert!(!placement.is_divided());
    }

    #[test]
    fn sizes_and_places_belong_on_the_processor_and_products_do_not() {
        let sizes = " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2\n  Shape (/Shape)\n  Gather (/Gather)\n \
                     Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 2\n  MatMul (a)\n  MatMul (b)";
        let placement = read(sizes).unwrap();
        assert_eq!((placement.nodes, placement.on_processor), (4, 2));
        assert!(!placement.is_divided());
        let products = sizes.replace("Shape (/Shape)", "FusedMatMul (/Shape)");
        let placement = read(&products).unwrap();
        assert!(placement.is_divided());
        assert_eq!(placement.to_string(), "FusedMatMul (1)");
    }

    #[test]
    fn nothing_is_said_of_what_is_not_understood() {
        assert_eq!(read(""), None);
        assert_eq!(read(" Nodes placed on [CUDAExecutionProvider]: many"), None);
    }
}
