//! Inference takes what others leave of this machine's processors.
//!
//! ```text
//!  /proc ──▶ processors ──▶ controller ──▶ gate ──▶ inference threads
//!            who used         how many      which threads work,
//!            how much         cores         and how much of the time
//! ```
//!
//! A server on the same machine wakes its processes several times in each transaction. Each of them would wait for a slice
//! of a thread that computes, and the weights that the kernel knows (`nice`, `SCHED_IDLE`, cgroup weights) shorten that
//! wait too little. So inference gives cores up: it runs on fewer threads, and the last of them works in short turns
//! ([`throttle`]). Parked threads cost nothing.
//!
//! Nothing of this needs privileges. Where the system does not tell who uses its processors, inference runs without it.

mod controller;
mod gate;
mod monitor;
mod processes;
mod processors;
mod servers;
mod throttle;

pub use processes::{OwnProcess, Processes};

pub(crate) use gate::Gate;
pub(crate) use monitor::Monitor;
pub(crate) use throttle::Throttle;

/// Whether inference yields to other users of the processors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Yielding {
    /// It takes what it gets.
    Off,
    /// It yields, down to this share of the cores, which is more than 0 and at most 1.
    DownTo(f64),
}

/// The share that inference keeps unless told otherwise.
pub const DEFAULT_FLOOR: f64 = 0.1;

impl Default for Yielding {
    fn default() -> Self {
        Yielding::DownTo(DEFAULT_FLOOR)
    }
}
