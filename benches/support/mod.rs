//! What the benchmarks share: a server, the daemon, the kernel's figures of a process, and the model without anything around it.

#![allow(dead_code, reason = "each benchmark needs a part of it")]

pub mod bare;
pub mod child;
pub mod data_path;
#[path = "../../tests/chaos/dice.rs"]
mod dice;
pub mod process;
pub mod server;
pub mod stage;
pub mod statistics;
pub mod target;
#[path = "../../tests/chaos/model.rs"]
pub mod tiny_model;

/// The default model.
pub const REAL_MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";
