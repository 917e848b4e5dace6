//! From rows to vectors in the table.
//!
//! ```text
//! rows ──▶ batcher ──▶ embedding engine ──▶ queue ──▶ writer ──▶ table
//!   ▲         │                │ error of one text     │ error
//!   │         │                ▼                       ▼
//!   └ receipt ┴─────────── quarantine ◀────────── failed_batch
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | [`path`] | all of it put together, for the daemon and for the commands |
//! | [`batcher`] | the task that moves rows from one place to the next |
//! | `batcher/newest` | which rows a new one supersedes |
//! | [`at_engine`] | rows whose texts are at the embedding engine, the newest of each key |
//! | [`unread`] | rows whose texts must be read by key |
//! | [`ports`] | the channels of the task |
//! | [`documents`] | the same for jobs with a table of passages |
//! | [`queue`] | rows that wait for a write-back or for a retry |
//! | [`link_speed`] | how large a batch may be |
//! | [`writer`] | the session that writes and reads |
//! | [`statement`] | the SQL of a write-back, with its guard |
//! | [`outcome`] | what goes to the writer, and what became of it |
//! | [`failed_batch`] | what to do with a batch that the server refused |
//! | [`quarantine`] | rows that cannot be embedded or written |
//! | [`truncated_texts`] | texts that are longer than the model's window |
//! | [`fence`] | one session at a time writes for a job |
//! | [`rereads`] | how often rows with another text are read by key |
//! | [`owner_role`] | write-backs as the owner of the table |
//! | [`triggers`] | the option `skip_triggers` |
//!
//! Delivery is at least once: a row may come again, after a crash or beside a command. Write-backs are idempotent,
//! because their guard compares the text that was embedded with the one that the row holds, so repeating one is
//! harmless.

pub mod at_engine;
pub mod batcher;
pub mod documents;
pub mod failed_batch;
pub mod fence;
pub mod link_speed;
pub mod outcome;
pub mod owner_role;
pub mod path;
pub mod ports;
pub mod quarantine;
pub mod queue;
pub mod rereads;
pub mod statement;
pub mod triggers;
pub mod truncated_texts;
pub mod unread;
pub mod writer;
