//! A document and its passages: what the table holds of it, what it should hold, and the SQL in between.
//!
//! ```text
//! key ──▶ read ──▶ found ──▶ cutter ──▶ plan ──▶ write ──▶ table of passages
//!          │         text, fields,       which passages stay as they are, which move, which need a vector
//!          │         stored passages
//!          └─▶ current, gone, too large, not visible yet
//! orphans ──▶ keys of passages whose row is gone
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | [`found`] | a document as it was read, with its stored passages |
//! | [`read`] | the statement that reads documents by key, each in one snapshot with its passages |
//! | [`cutter`] | how the documents of a job are cut |
//! | [`plan`] | which of the stored passages a document keeps, and which it needs |
//! | [`write`] | the statement that replaces the passages of documents, with its guard |
//! | [`orphans`] | the keys of passages whose row is gone |
//!
//! Nothing here waits or knows of a stream: `pipeline/write/documents` moves documents from one step to the next.

pub mod cutter;
pub mod found;
pub mod orphans;
pub mod plan;
pub mod read;
pub mod write;
