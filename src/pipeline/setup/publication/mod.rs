//! Publications.

pub mod catalog;
pub mod check;
pub mod members;
pub mod own;
pub mod shared;
