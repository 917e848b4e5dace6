//! How the daemon recognizes its own write-backs in the stream.
//!
//! The first statement of each write-back transaction is `SELECT pg_logical_emit_message(true, 'lantern', '')`. The message
//! is part of the WAL, so it comes through the stream between Begin and the first row of the transaction (PostgreSQL
//! manual, "Replication Management Functions" and "Logical Replication Message Formats"). The change filter leaves such
//! transactions out. The marker works for every role and survives restarts, which neither a list of our own transaction
//! ids nor a replication origin does.

/// The prefix of the message. Daemons of other versions read it too: never change it.
pub const WRITE_BACK_MARKER: &str = "lantern";
