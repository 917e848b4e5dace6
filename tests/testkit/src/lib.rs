//! What the integration tests, the chaos tests, the benchmarks and the demo share.
//!
//! ```text
//!   wait ◀── client ◀── psql, database ◀── jobs ◀── scene
//!     ▲                      │              ▲         │
//!     │                      ▼              │         ▼
//!     └───── process    server, paths    vectors   program ──▶ process
//! ```
//!
//! A test takes what it needs in this order, because Rust drops the values of a scope in the opposite one: the daemon
//! stops first, then the connection closes, then the database is dropped.
//!
//! ```no_run
//! # async fn example() {
//! use testkit::{Program, TestDatabase, server};
//!
//! let program = Program::new("target/debug/lantern-cli");
//! let database = TestDatabase::with_vector(server::shared()).await;
//! let client = database.client().await;
//! let daemon = program.start_daemon(&["--uri", &database.uri()]);
//! # }
//! ```
//!
//! Helpers panic where a test has nothing better to do than to fail. What the demo uses returns errors.

#![warn(missing_docs)]

pub mod browser;
pub mod client;
pub mod data_path;
pub mod database;
pub mod engine;
pub mod hub;
pub mod jobs;
pub mod notify_socket;
pub mod paths;
pub mod process;
pub mod procfs;
pub mod program;
pub mod psql;
pub mod random;
pub mod reference;
pub mod restartable;
pub mod scene;
pub mod server;
pub mod skip;
pub mod slow_link;
pub mod statistics;
pub mod stub_engine;
pub mod terminal;
pub mod tiny_model;
pub mod vectors;
pub mod wait;

pub use browser::Browser;
pub use database::TestDatabase;
pub use hub::Hub;
pub use notify_socket::NotifySocket;
pub use process::Process;
pub use program::Program;
pub use restartable::RestartableServer;
pub use scene::Scene;
pub use slow_link::SlowLink;
pub use stub_engine::StubEngine;
pub use terminal::Terminal;
