//! How a job works: from its row in the jobs table, through slot and stream, to vectors in its table. It joins what
//! the other modules keep apart: replication, SQL and the embedding engine.
//!
//! ```text
//! jobs table ─▶ supervisor ─▶ job ─▶ setup ─▶ capture ─▶ write ─▶ target table
//!                                      │         ▲         ▲
//!                                      └─ slot ──┘         └── backfill
//! ```
//!
//! Its folders import each other only downward, in this order:
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`supervisor`] | which jobs run in this daemon; starts, cancels and cleans up |
//! | [`commands`] | `check`, `status`, `search`, `verify`, `resync`, `retry-failed` and `wait`, which work beside the daemon |
//! | [`job`] | one job's life: attempts, preparation, the streaming parts |
//! | [`capture`] | reads a slot and turns changes into rows that need work |
//! | [`write`] | batches, embeds and writes rows; quarantines what is refused |
//! | [`chunks`] | a document and its passages: what is stored, what is wanted, and the SQL in between |
//! | [`backfill`] | which existing rows need a vector, and the scan over them |
//! | [`changeover`] | a job that takes over the column of another one, with another model |
//! | [`index`] | which indexes the vectors have, and the one that a job asks for |
//! | [`setup`] | from a jobs row to everything that a stream needs |
//! | [`slot`] | one replication slot: named, created, watched, dropped |
//! | [`table`], [`error`] | what a target table, a key and a row are; why a job stops |
//!
//! The daemon, without its command line:
//!
//! ```no_run
//! # async fn daemon() -> Result<(), Box<dyn std::error::Error>> {
//! use lantern::embedding::{ModelCatalog, Engine, EngineOptions};
//! use lantern::pipeline::setup::preflight::users_code::PowerfulRoles;
//! use lantern::pipeline::supervisor::options::{SlotAllocation, SupervisorOptions};
//! use lantern::pipeline::supervisor::state::Supervisor;
//! use lantern::postgres::{ConnectionString, JobAccess};
//! use lantern::status::StatusBoard;
//! use tokio_util::sync::CancellationToken;
//!
//! let options = SupervisorOptions {
//!     database: ConnectionString::from_operator("postgresql://me@localhost/app")?,
//!     schema: "public".into(),
//!     table: "jobs".into(),
//!     label: None,
//!     access: JobAccess::default(),
//!     max_retained_wal: "16GB".parse()?,
//!     slots: SlotAllocation::PerJob,
//!     max_jobs: 100,
//!     powerful_roles: PowerfulRoles::Refuse,
//! };
//! let engine = Engine::new(ModelCatalog::new("models".into()), EngineOptions::default());
//! let stop = CancellationToken::new();
//! let board = StatusBoard::default();
//! Supervisor::open(options, engine, board, stop).await?.run().await;
//! # Ok(())
//! # }
//! ```

pub mod backfill;
pub mod capture;
pub mod changeover;
pub mod chunks;
pub mod commands;
pub mod error;
pub mod index;
pub mod job;
pub mod setup;
pub mod slot;
pub mod supervisor;
pub mod table;
pub mod write;
