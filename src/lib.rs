//! Keeps vector embeddings in PostgreSQL up to date by logical replication.

pub mod cli;
pub mod embedded;
pub mod embedding;
pub mod jobs;
pub mod pipeline;
pub mod postgres;
pub mod replication;
