//! From a jobs row to all that a stream needs.

pub mod ddl;
pub mod definition;
pub mod preflight;
pub mod publication;
pub mod target_database;
