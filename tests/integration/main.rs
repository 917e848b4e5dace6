//! The tests that need PostgreSQL. One binary, so that all of them share one server: see `support`.

mod cancelling;
mod commands;
mod connecting;
mod core_on_debian;
mod destinations;
mod documented_example;
mod embedded;
mod embedded_default;
mod failures;
mod fingerprints;
mod fleet;
mod hazards;
mod injection;
mod jobs_table;
mod keys_and_types;
mod listening;
mod refusals;
mod resuming;
mod retrying;
mod secrets;
mod setup;
mod sql;
mod stopping;
mod support;
mod texts;
mod thousands;
