//! A private PostgreSQL server: for a daemon that was given no database, for the demo and for the tests.
//!
//! ```text
//!  Installation ──▶ PrivatePostgres::start
//!  finds the          │  ServerDirectory     locks the directory, keeps password, port and log
//!  programs           │  initdb              creates the database once
//!                     ▼
//!                   SupervisedProcess ──▶ postgres      never outlives this process, even if it is killed
//! ```
//!
//! Everything here blocks. Asynchronous code calls it through `spawn_blocking`.
//!
//! ```no_run
//! use lantern::embedded::{Installation, PrivatePostgres, ServerOptions};
//!
//! let installation = Installation::find("/var/lib/lantern".as_ref())?;
//! let options = ServerOptions {
//!     settings: vec![("max_connections".into(), "400".into())],
//!     ..ServerOptions::new("/var/lib/lantern/embedded")
//! };
//! let server = PrivatePostgres::start(&installation, options)?;
//! println!("psql '{}'", server.uri("postgres"));
//! server.stop()?;
//! # Ok::<(), lantern::embedded::EmbeddedError>(())
//! ```
//!
//! The error for a missing server says where it was searched and what to do:
//!
//! ```
//! use lantern::embedded::Installation;
//!
//! let error = Installation::at("/nonexistent/bin".as_ref()).expect_err("there is no server");
//! assert!(error.to_string().starts_with("cannot find /nonexistent/bin"));
//! ```

mod account;
mod directory;
mod error;
mod files;
mod initdb;
mod installation;
mod launch;
mod options;
mod port;
mod postmaster;
mod server;
mod supervised_process;

pub use directory::default_directory;
pub use error::EmbeddedError;
pub use installation::Installation;
pub use options::ServerOptions;
pub use server::{PrivatePostgres, percent_encoded};
