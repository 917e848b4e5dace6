//! What the kernel says of a process: processor time, which the noise of a shared machine does not change (proc_pid_stat(5)),
//! and memory (proc_pid_status(5), proc_pid_clear_refs(5)).

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Processor time of a process so far, user and system.
pub fn used(process: u32) -> Duration {
    ticks(process, [11, 12])
}

/// Processor time of the children of a process that have ended.
pub fn used_by_ended_children(process: u32) -> Duration {
    ticks(process, [13, 14])
}

/// The children of a process that have not ended.
pub fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace();
    children.filter_map(|child| child.parse().ok()).collect()
}

pub fn parent(process: u32) -> u32 {
    let parent = fields(process).get(1).and_then(|field| field.parse().ok());
    parent.expect("the process runs")
}

fn ticks(process: u32, places: [usize; 2]) -> Duration {
    let all = fields(process);
    let ticks = places.iter().filter_map(|place| all.get(*place));
    let sum: u32 = ticks.filter_map(|field| field.parse::<u32>().ok()).sum();
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs(sum.into()) / u32::try_from(hertz).unwrap_or(100)
}

/// `stat` from the third field on: the name before it may hold anything.
fn fields(process: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}

/// How long the threads of a process with this prefix have wanted a processor so far, all together: on one, or in line for it
/// (`schedstat` in the kernel's sched-stats.rst). And how many they are.
pub fn wanted_by_threads(process: u32, prefix: &str) -> (Duration, usize) {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let (mut wanted, mut count) = (0, 0);
    for thread in threads.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            let times = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let times = times.split_whitespace().take(2);
            wanted += times
                .filter_map(|time| time.parse::<u64>().ok())
                .sum::<u64>();
            count += 1;
        }
    }
    (Duration::from_nanos(wanted), count)
}

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
