//! Execution providers: the parts of ONNX Runtime that run a graph on a kind of hardware.
//!
//! ```text
//!  --execution-provider cuda:0+1,cpu ──▶ group ──▶ order ──▶ check: is it there, and the device? ──▶ registration ──▶ session
//!                                                   │           (missing: what to install)              │
//!                                                   └── the next one, with a warning ◀── self_test ◀────┘
//! ```
//!
//! The vectors of every provider but the CPU's are compared with those of the CPU before a model is used
//! ([`self_test`]): such a provider may compute in another precision than the graph's, or a part of it wrongly, and
//! nothing but a comparison shows that.

pub(crate) mod calibration;
pub(crate) mod check;
pub(crate) mod choice;
pub(crate) mod fault;
pub(crate) mod group;
pub(crate) mod kind;
pub(crate) mod missing;
pub(crate) mod order;
pub(crate) mod placement;
pub(crate) mod plan;
pub(crate) mod preload;
pub(crate) mod registration;
pub(crate) mod self_test;
pub(crate) mod small_graph;
