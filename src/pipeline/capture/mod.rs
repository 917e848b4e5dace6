//! From a replication slot to rows: who reads the slot, for which jobs, and how far the server may discard its WAL.
//!
//! ```text
//!                ┌───────────────────── slot reader ─────────────────────┐       ┌────── subscriber: a job ─────┐
//! walsender ─▶ open ─▶ reader ─▶ changes ─▶ table_changes ─▶ subscribers ─┼ rows ─▶ batcher ─▶ writer ─▶ table │
//!     ▲                  │  ▲                                             │       └──────────────┬──────────────┘
//!     └── status update ─┘  └─────────────── receipts (LiveAck) ◀─────────┼──────────────────────┘
//!                └───────────────────────────────────────────────────────┘
//! ```
//!
//! A slot reader is a task that owns one replication connection. With a slot for each job it has one subscriber, and
//! ends with it. With `--slots database` it has as many as the database has jobs. They come and go while it streams;
//! after the last one has left, it waits 3 s for another before it ends. An error of the connection ends the reader,
//! and so does a shared slot that retains more WAL than it may. Every subscriber is told why.
//!
//! | file | holds |
//! | --- | --- |
//! | [`subscription`] | how a job gets its changes: [`own_slot`] or [`shared_slot`] |
//! | [`streamable`] | what the set-up of a stream results in |
//! | [`registry`] | the shared slot readers of a daemon |
//! | [`slot_reader`], [`join`] | the handle of a slot reader, and what passes between it and a job |
//! | [`lifecycle`] | gather subscribers, stream for them, restart, end |
//! | [`open`] | where a slot is, and how its stream is opened |
//! | [`reader`], [`feedback`], [`pace`] | the loop over the stream, its status updates, how often it reads |
//! | [`changes`], [`table_changes`], [`shown_texts`] | from messages to the rows that need work |
//! | [`subscribers`], [`published_table`], [`in_flight`] | who gets the rows of which table, and how many are out |

pub mod changes;
mod commit_times;
pub mod feedback;
pub mod in_flight;
pub mod join;
pub mod lifecycle;
pub mod open;
pub mod own_slot;
pub mod pace;
pub mod published_table;
pub mod reader;
pub mod registry;
pub mod shared_slot;
pub mod shown_texts;
pub mod slot_reader;
pub mod streamable;
pub mod subscribers;
pub mod subscription;
pub mod table_changes;
