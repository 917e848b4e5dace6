//! One job, from its row in the jobs table to its end.
//!
//! ```text
//! Pending ─▶ Preparing ─▶ Backfilling ─▶ Streaming ─▶ Canceled
//!                ▲            │              │
//!                └─ Retrying ◀┴──────────────┤
//!                                            └─▶ Failed, until a person acts
//! ```
//!
//! Streaming starts with the slot, beside the backfill. An attempt is one way from preparing to whatever ends it:
//!
//! | file | holds |
//! | --- | --- |
//! | [`state`] | what a job needs, and how it ends |
//! | [`attempts`] | the transitions: attempt, retry, fail |
//! | [`prepare`] | preflight, set-up, write path, subscription |
//! | [`stream`] | the concurrent parts of a streaming job |
//! | [`watchdog`] | the questions about the table that are asked each second |

pub mod attempts;
pub mod prepare;
pub mod state;
pub mod stream;
pub mod watchdog;
