//! A private PostgreSQL: for a daemon that was given no database, for the demo and for the tests.
//!
//! [`Installation`] finds the server programs, [`PrivatePostgres`] runs a server with them. The server belongs to the
//! process that started it and never outlives it, however that process ends; `supervisor` says how.
//!
//! Everything here blocks: asynchronous code calls it through `spawn_blocking`.

mod account;
mod directory;
mod error;
mod initdb;
mod installation;
mod launch;
mod port;
mod postmaster;
mod server;
mod supervisor;

pub use directory::default_directory;
pub use error::EmbeddedError;
pub use installation::Installation;
pub use server::{Options, PrivatePostgres};
