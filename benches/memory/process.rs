//! What the kernel says of a process's memory (proc_pid_status(5), proc_pid_clear_refs(5)).

use std::fs;

/// Resident memory in bytes.
#[derive(Clone, Copy)]
pub struct Resident {
    pub now: u64,
    /// The most since the last [`reset_peak`].
    pub peak: u64,
}

pub fn resident(process: u32) -> Resident {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a figure in kB")
            << 10
    };
    Resident {
        now: field("VmRSS:"),
        peak: field("VmHWM:"),
    }
}

/// From now on the peak counts from what is resident now. Where the kernel does not allow that, it goes on counting from
/// the process's start, which can only make the figures larger.
pub fn reset_peak(process: u32) {
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}
