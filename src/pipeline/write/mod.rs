//! Vectors to the table.

pub mod batcher;
pub mod fence;
pub mod path;
pub mod quarantine;
pub mod queue;
pub mod triggers;
pub mod writer;
