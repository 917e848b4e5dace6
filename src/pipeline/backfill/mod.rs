//! Existing rows.

pub mod partitions;
pub mod scan;
pub mod scope;
