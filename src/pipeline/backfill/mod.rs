//! The rows that a table holds already: which of them need a vector, and the scan that finds them.
//!
//! ```text
//! scope ──▶ which rows? ─┐
//!                        ├─▶ scan ──▶ rows ──▶ write path
//! partitions ─▶ where? ──┘    ▲                    │
//!                             └────── receipts ◀───┘
//! ```
//!
//! A scan starts after the slot exists. So a change is either seen by the scan or comes through the stream, and where
//! both happen the guard of the write-back keeps the result right.

pub mod keyset;
pub mod partitions;
pub mod scan;
pub mod scope;
