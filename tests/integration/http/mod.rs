//! What the daemon shows over HTTP: to Prometheus, to probes and to people.
//!
//! `answers`, `metrics` and `page` fill the board of a server themselves, so that every state can be shown at once; `daemon`
//! and the last test of `page` ask a real daemon.

mod answers;
pub mod daemon;
mod documents;
mod fixtures;
mod healthcheck;
pub mod metrics;
mod page;
pub mod requests;
