//! Keeps vector embeddings in PostgreSQL up to date by logical replication, without triggers, queues or extensions.
//!
//! The rooms and how data flows through them are in `ARCHITECTURE.md`. From the outside in: [`cli`] reads arguments,
//! [`pipeline`] runs the jobs that [`jobs`] finds in the jobs table, over the protocol in [`replication`] and the vectors
//! of [`embedding`]. [`postgres`] is how all of them connect, and [`embedded`] is a private server for those who have
//! none.

pub mod backoff;
pub mod cli;
pub mod embedded;
pub mod embedding;
mod failpoint;
pub mod jobs;
pub mod pipeline;
pub mod postgres;
pub mod replication;
