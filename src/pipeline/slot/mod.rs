//! One replication slot: named, created, watched, dropped.
//!
//! ```text
//!  names ──▶ create ──▶ a slot ──▶ drop
//!              │           │
//!              └────┬──────┘
//!               retention      at most --max-retained-wal, while the slot is created and while it is read
//! ```
//!
//! A slot retains WAL on its server until its reader confirms a position (PostgreSQL manual, "Replication
//! Slots"). So this module never leaves one behind that nothing reads, and never lets one grow without a limit.
//!
//! | file | holds |
//! | --- | --- |
//! | [`names`] | names of slots and publications, and what identifies a member of a shared one |
//! | [`catalog`] | SQL over `pg_replication_slots` |
//! | [`job_slots`] | the slot of a job, whichever kind it is |
//! | [`committed_end`] | the end of what is committed, to be waited for |
//! | [`blockers`] | whom a statement waits for, in words |
//! | [`create`] | creating a slot, and reporting the transactions that hold this up |
//! | [`drop`](mod@drop) | dropping a slot, and ending a stale reader first |
//! | [`session_locks`] | advisory locks by which sessions in a target database find each other |
//! | [`retention`] | watching how much WAL a slot retains |
//! | [`retention_limit`] | the limit, as a person writes it |

pub mod blockers;
pub mod catalog;
pub mod committed_end;
pub mod create;
pub mod drop;
pub mod job_slots;
pub mod names;
pub mod retention;
pub mod retention_limit;
pub mod session_locks;
pub mod walsender;
