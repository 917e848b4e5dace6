//! The state of a daemon.

use serde::{Deserialize, Serialize};

use super::record::DaemonName;

/// The state of a daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its machine, process and version.
    pub name: DaemonName,
    /// The jobs table, quoted.
    pub jobs_table: String,
    /// How long it has run, in seconds.
    pub uptime_seconds: f64,
    /// The memory that it occupies (resident set size), in bytes, where the system tells.
    pub memory_bytes: Option<u64>,
    /// Jobs that run in this daemon.
    pub running_jobs: usize,
    /// Why the jobs database does not answer, if it does not.
    pub jobs_database_error: Option<String>,
    /// Threads for inference.
    pub inference_threads: usize,
    /// The share of these threads' time that inference may use now, above 0 and up to 1: below 1 while it yields.
    pub inference_share: f64,
    /// Texts that got a vector.
    pub texts: u64,
    /// Vectors that were computed for them.
    pub computed_texts: u64,
}

/// The memory that this process occupies, in bytes (`VmRSS`, proc_pid_status(5)); `None` where the system does not tell.
pub fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
