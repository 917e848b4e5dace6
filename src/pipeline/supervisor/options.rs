//! What a daemon is started with.

use crate::pipeline::setup::preflight::users_code::PowerfulRoles;
use crate::pipeline::slot::retention_limit::RetentionLimit;
use crate::postgres::{ConnectionString, JobAccess};

/// Where the jobs are, and what they may do.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// The jobs database.
    pub database: ConnectionString,
    /// The schema of the jobs table.
    pub schema: String,
    /// The name of the jobs table.
    pub table: String,
    /// Only rows with this label are this daemon's.
    pub label: Option<String>,
    /// What jobs may connect to, and which files they may name.
    pub access: JobAccess,
    /// The most WAL that each slot may retain.
    pub max_retained_wal: RetentionLimit,
    /// How many slots there are.
    pub slots: SlotAllocation,
    /// The most jobs that this daemon runs at a time.
    pub max_jobs: usize,
    /// What to do about jobs whose role has rights that others could gain through it.
    pub powerful_roles: PowerfulRoles,
}

/// How many replication slots there are for the jobs of one target database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotAllocation {
    /// One for each job.
    PerJob,
    /// One for all jobs. They all run in one daemon, since a slot has one reader at a time.
    PerDatabase,
}
