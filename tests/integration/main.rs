//! The tests that need PostgreSQL. One binary, so that all of them share one server: see `support`.

mod cancelling;
mod documented_example;
mod embedded;
mod listening;
mod resuming;
mod setup;
mod sql;
mod support;
