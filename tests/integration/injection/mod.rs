//! Whoever can write to the jobs table, or name a table, does no more by it than that.

mod hosts;
mod models;
mod names;
