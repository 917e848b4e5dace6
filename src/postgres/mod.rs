//! postgres

pub mod quote;
