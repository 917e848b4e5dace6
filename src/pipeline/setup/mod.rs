//! From a row of the jobs table to everything that a stream needs.
//!
//! ```text
//! jobs row ─▶ definition ─▶ target_database ─▶ preflight ─▶ target_table ─▶ publication
//!             names are     where may we       look, and    create the      create it, and the slot
//!             complete      connect            refuse with  missing         by the module `slot`;
//!                                              a remedy     columns         or continue with both
//! ```
//!
//! Two more questions stand before any change: whether a daemon with a copy of the jobs database works on the same
//! ([`copies`]), and whether another job writes the same columns ([`written_columns`]).
//! [`table_state`] and [`leaves`] are what a running job looks at each second: they tell what has become of its table.
//! [`exclusive_use`] tells when it has to leave the database, and [`database_watch`] asks that once for all jobs of it.
//!
//! [`coverage`] tells how many rows have a vector, for those who watch.
//!
//! A job may name a second role for all that touches rows ([`row_access`]).
//!
//! Everything up to [`preflight`] only looks. What changes the target comes after it and goes through [`ddl`], which
//! never keeps users waiting for long.

pub mod chunk_table;
pub mod columns;
pub mod columns_of_command;
pub mod copies;
pub mod coverage;
pub mod database_watch;
pub mod ddl;
pub mod definition;
pub mod documents_view;
pub mod exclusive_use;
pub mod leaves;
pub mod model;
pub mod passages_state;
pub mod preflight;
pub mod publication;
pub mod row_access;
pub mod table_state;
pub mod target_database;
pub mod target_table;
pub mod text_options;
pub mod written_columns;
