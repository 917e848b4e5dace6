//! Keeps vector embeddings in PostgreSQL up to date by logical replication, without triggers, queues or extensions.
//!
//! `ARCHITECTURE.md` describes the modules and how data flows through them. From the outside in:
//!
//! ```text
//! cli ──▶ pipeline ──▶ jobs          the jobs table
//!            │  ├─────▶ status        what a job does and has done, as a person sees it
//!            │  ├─────▶ replication   the replication protocol, without knowledge of the rest
//!            │  └─────▶ embedding     texts in, vectors out; without knowledge of PostgreSQL
//!            └────────▶ postgres      connections to PostgreSQL
//!            http                     metrics, health and a status page, of what `status` has
//!            embedded                 a private PostgreSQL server, for the default run, the demo and the tests
//! ```

// Commands print through `cli/output.rs`, and say the rest through `cli/stderr.rs`: neither panics.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod backoff;
pub mod byte_size;
pub mod cli;
pub mod embedded;
pub mod embedding;
mod failpoint;
pub mod http;
pub mod jobs;
pub mod pipeline;
pub mod plural;
pub mod postgres;
mod reminder;
pub mod replication;
pub mod shown;
pub mod similar;
pub mod splitting;
pub mod status;
mod ticks;
