//! One job's life, and the supervisor that runs them all. The only room that knows both the database and the embedder.

pub mod backfill;
pub mod capture;
pub mod commands;
pub mod error;
pub mod job;
pub mod setup;
pub mod slot;
pub mod supervisor;
pub mod table;
pub mod write;
