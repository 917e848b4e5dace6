//! What the tests share: a server, a database for each test, the daemon as a process, the jobs table.
//!
//! A test takes what it needs in this order, so that it is dropped in the opposite one:
//!
//! ```ignore
//! let database = TestDatabase::with_vector(server()).await;
//! let client = database.client().await;
//! let daemon = Daemon::start(&database, &[]);
//! ```

#[allow(dead_code, reason = "for the tests of the daemon")]
mod daemon;
#[allow(dead_code, reason = "for the tests of the daemon")]
mod database;
pub mod jobs;
pub mod observe;
mod server;
pub mod vectors;
#[allow(dead_code, reason = "for the tests of the daemon")]
mod wait;

pub use lantern::embedded::PrivatePostgres;

#[allow(unused_imports, reason = "helpers for tests to come")]
pub use self::{
    daemon::Daemon,
    database::TestDatabase,
    server::{
        checkout, debian_installation, debian_server, installation, program_of, runtime, server,
        start,
    },
    wait::{wait_for, wait_until},
};
