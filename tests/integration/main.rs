//! The tests that need PostgreSQL. One binary, so that all of them share one server: see `support`.

mod embedded;
mod hazards;
mod setup;
mod sql;
mod support;
