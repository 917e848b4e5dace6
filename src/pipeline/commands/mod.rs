//! What the commands beside the daemon do: `check` says what a job lacks, `status` shows the state of jobs, `search` finds
//! rows, `verify` counts wrong vectors, `resync` and `retry-failed` repair them, and `wait` waits until the daemon has
//! done its work. `embed-table` embeds a table without any job.
//!
//! Each is a process of its own, with its own sessions to the jobs database and the target. None takes a lock of the
//! job, so they work while a daemon runs it, and without one. `embed-table` takes those of its columns: two writers
//! that know nothing of each other would replace each other's vectors.

pub mod check;
pub mod embed_table;
mod passage_pages;
pub mod possible_keys;
pub mod repair;
pub mod row_work;
pub mod search;
pub mod status;
pub mod verify;
pub mod verify_documents;
pub mod wait;
