//! A target table, its keys and rows.

pub mod fingerprint;
pub mod row;
pub mod target;
pub mod write_back_marker;
