//! The jobs table: which columns it has, what its rows ask for, how it changes, and where results are written down.
//! Knows the jobs database; knows nothing of replication or embedding.

pub mod definition;
pub mod failures;
pub mod lock;
pub mod presence;
pub mod reporter;
pub mod store;
pub mod table;
pub mod watcher;

pub use definition::{Definition, JobId, JobRow, Progress};
pub use store::JobStore;
pub use table::JobsTable;
