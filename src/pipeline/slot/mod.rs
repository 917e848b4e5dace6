//! One replication slot.

pub mod catalog;
pub mod create;
pub mod drop;
pub mod names;
pub mod retention;
pub mod retention_limit;
