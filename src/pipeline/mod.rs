//! One job's life, and the supervisor that runs them all. The only room that knows both the database and the embedder.
//!
//! ```text
//!                    ┌─────────────── job ────────────────────────────────────┐
//! jobs table ─▶ supervisor ─▶ preflight ─▶ provision ─▶ capture ─▶ batcher ─▶ writer ─▶ target table
//!                    │                                  (intake)  ▲   │
//!                    │                               backfill ────┘   └─▶ embedding engine
//!                    └─▶ teardown when a job is cancelled or its row deleted
//! ```

pub mod aside;
pub mod backfill;
pub mod batcher;
mod ddl;
mod error;
pub mod feed;
mod fence;
pub mod fingerprint;
mod fleet;
pub mod intake;
pub mod job;
mod orphans;
pub mod partitions;
pub mod preflight;
mod provision;
pub mod ready;
pub mod recent;
pub mod repair;
pub mod reporter;
pub mod retention;
pub mod row;
mod scope;
mod slot_wait;
mod subscription;
pub mod supervisor;
pub mod target;
mod target_database;
mod teardown;
mod triggers;
pub mod verify;
mod watchdog;
pub mod writer;

pub use error::JobError;
pub use retention::RetentionLimit;
pub use supervisor::{Options, Slots, Supervisor};

/// Prefix of the message that opens each of our write-back transactions; the stream leaves such transactions out.
pub const MARKER: &str = "lantern";
