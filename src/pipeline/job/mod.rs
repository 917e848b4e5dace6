//! One job, from its row in the jobs table to its end.
//!
//! ```text
//!        ┌───── transient error: pause, next attempt ─────┐
//!        ▼                                                │
//! run ─▶ attempt: prepare ─▶ stream, backfill beside it ──┼─▶ Stopped    the daemon stops
//!                                                         └─▶ Failed     permanent error: a person has to act
//!
//! at any moment ────────────────────────────────────────────▶ Canceled   the supervisor ends the job
//! ```
//!
//! A login that the target server refuses counts as transient if the job has run before.
//!
//! An attempt runs from preparation until something ends it. It streams as soon as the slot exists, while the backfill
//! runs. The supervisor ends a job that is canceled, deleted, replaced or restarted, or that another daemon has taken
//! over. What follows each [`JobEnd`](state::JobEnd) is the supervisor's task too.
//!
//! | file | holds |
//! | --- | --- |
//! | [`state`] | what a job needs, and how it ends |
//! | [`attempts`] | the transitions: attempt, retry, fail |
//! | [`interruption`] | what log and row say while a job is interrupted |
//! | `changeover` | a job that takes over the column of another one, and that other one |
//! | `index` | the index that the job asks for |
//! | `model_servers` | what row and log say while the model's servers or devices hold a job up |
//! | [`prepare`] | preflight, set-up, write path, subscription |
//! | `replacement` | a table that is replaced while it is looked at |
//! | `roles` | the role that reads and writes rows |
//! | [`stream`] | the concurrent parts of a streaming job |
//! | [`watchdog`] | the questions about the table that are asked each second |

pub mod attempts;
mod changeover;
mod index;
pub mod interruption;
mod model_servers;
pub mod prepare;
mod replacement;
mod roles;
pub mod state;
pub mod stream;
pub mod watchdog;
