//! From changed rows to the passages of their documents, for jobs with a table of passages.
//!
//! ```text
//! live ──────┐              ┌──────────────── read again ◀──────────────┐
//!            ├─▶ in hand ─▶ read ─▶ cut ─▶ engine ─▶ write ─────────────┤
//! backfill ──┘      ▲        │                │         │               ├─▶ retry later
//!                   │        └─ current, gone ┼─────────┴───────────────┴─▶ finished: receipts go back
//! truncated ─▶ sweep (passages without a row) └─ error of one text ─▶ quarantine, then finished
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | [`task`] | the task that moves documents from one step to the next |
//! | [`work`] | work of the session, and of the threads that cut |
//! | [`next`] | which work comes next |
//! | [`settle`] | what the results of that work mean |
//! | [`refusals`] | why documents are quarantined |
//! | [`document`] | a document on its way, and how a newer change joins it |
//! | [`in_hand`] | all of them: one for each key, in the order in which they came, with the memory that they take |
//! | [`at_engine`] | passages whose vectors are being computed |
//! | [`sweep`] | what a TRUNCATE leaves to do |
//! | [`session`] | the session that reads and writes |
//!
//! A change says only that a row may have changed. So however it came, the row is read by key, together with its passages,
//! and what it holds then is what counts. A newer change of a key joins the older one at whatever step that is: its receipt
//! goes out, since the newer one comes later in the WAL and holds the position itself. What was read before is read again,
//! and vectors that were computed meanwhile are kept.

pub mod at_engine;
pub mod document;
pub mod in_hand;
pub mod next;
pub mod refusals;
pub mod session;
pub mod settle;
pub mod sweep;
pub mod task;
pub mod work;
