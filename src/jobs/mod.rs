//! The jobs table: which columns it has, what its rows ask for, how it changes, and where results are recorded.
//!
//! ```text
//!              ┌ table       which columns the table has; privileges: what the role may do; trust: whose code runs
//! jobs table ──┤ store       its rows, read (rows) and updated over one session ──▶ definition   what a row asks for
//!              │ known_rows  the same again and again, read only where they may have changed
//!              └ watcher     what has changed since the last poll
//!
//!   chunk_table the name of a table for passages
//!   failures   rows that could not be embedded or written (the quarantine); failures_summary: how many
//!   stats      what a daemon records of its jobs for those who ask the database
//!   succession which job replaces which
//!   reporter   how a job's progress reaches its row
//!   lock       one daemon per job                         ┐ both are advisory locks
//!   presence   who shares the table, and who runs what    ┘ of the jobs database
//! ```
//!
//! This module knows the jobs database. It knows nothing of replication or embedding.
//!
//! ```no_run
//! # async fn list() -> Result<(), Box<dyn std::error::Error>> {
//! use lantern::jobs::{JobStore, JobsTable};
//! use lantern::postgres::{ConnectionString, Session};
//!
//! let database = ConnectionString::from_operator("postgresql://me@localhost/app")?;
//! let session = Session::open(&database).await?;
//! let table = JobsTable::discover(&session, "public", "jobs", None).await?;
//! let store = JobStore::new(session, table, None);
//! for row in store.rows().await?.rows {
//!     println!("job {}: {}", row.id, row.definition);
//! }
//! # Ok(())
//! # }
//! ```

pub mod chunk_table;
pub mod creation;
pub mod definition;
pub mod edit;
pub mod failures;
pub mod failures_summary;
pub mod known_rows;
pub mod lock;
pub mod presence;
mod privileges;
pub mod reporter;
mod rows;
pub mod stats;
pub mod store;
mod succession;
pub mod table;
mod table_error;
mod trust;
pub mod watcher;

pub use definition::{Definition, InitProgress, JobId, JobRow};
pub use store::JobStore;
pub use table::JobsTable;
