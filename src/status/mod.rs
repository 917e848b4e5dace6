//! The state of jobs and of the daemon, as people and programs see it.
//!
//! One value, [`JobStatus`], is what `lantern-cli status` prints, what `/metrics` and the status page show, and what the
//! views of `sql/monitoring.sql` select. It is put together in one place, [`JobStatus::assemble`], of what the jobs table
//! says and of what the daemon has counted:
//!
//! ```text
//! pipeline ──▶ JobCounters ──▶ JobRecord ──────────────┬─▶ JobStatus ─▶ StatusBoard ─▶ /metrics, page
//!                                  │  every 2 s        │
//!                                  ▼                   │
//!                           jobs.stats (jsonb) ────────┴─▶ JobStatus ─▶ lantern-cli status
//!                                  └───────────────────────▶ views of sql/monitoring.sql
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | [`counters`] | what a running job counts |
//! | [`lag`] | the age of the oldest change without a vector |
//! | [`rates`] | rows a second, and today |
//! | [`record`] | what the daemon writes into `stats` |
//! | [`job_status`] | the state of a job |
//! | [`daemon_status`] | the state of a daemon |
//! | [`board`] | the state of all, with the last minutes, for those who watch |
//! | [`served_models`] | the models that programs may use |

pub mod board;
pub mod counters;
pub mod daemon_status;
pub mod job_status;
pub mod lag;
pub mod rates;
pub mod record;
pub mod served_models;

pub use board::StatusBoard;
pub use counters::JobCounters;
pub use job_status::JobStatus;
pub use served_models::ServedModels;
