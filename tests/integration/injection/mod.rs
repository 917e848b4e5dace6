//! The right to write to the jobs table, or to name a table, gives no further rights.

mod hosts;
mod models;
mod names;
mod shown;
