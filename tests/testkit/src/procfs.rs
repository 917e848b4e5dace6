//! What the kernel tells about a process: relatives and arguments, processor time, which the noise of a shared machine
//! hardly changes (proc_pid_stat(5)), and memory (proc_pid_status(5), proc_pid_clear_refs(5)).

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// Processor time of a process so far, user and system.
pub fn cpu_time(process: u32) -> Duration {
    ticks(process, [11, 12])
}

/// Processor time of the children of a process that have ended.
pub fn cpu_time_of_ended_children(process: u32) -> Duration {
    ticks(process, [13, 14])
}

/// The children of a process that have not ended.
pub fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace();
    children.filter_map(|child| child.parse().ok()).collect()
}

/// The process that started this one.
pub fn parent(process: u32) -> u32 {
    let parent = fields(process).get(1).and_then(|field| field.parse().ok());
    parent.expect("the process runs")
}

/// The arguments of a process, separated by spaces; "" where it has ended, also before its status was read.
pub fn command_line(process: u32) -> String {
    let bytes = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The sum of two fields of `stat` that count clock ticks.
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

/// How long the threads of a process whose names have this prefix were runnable so far, all together: on a processor or
/// in a run queue (`schedstat` in the kernel's sched-stats.rst). And the number of these threads.
pub fn runnable_time_of_threads(process: u32, prefix: &str) -> (Duration, usize) {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let (mut runnable, mut count) = (0, 0);
    for thread in threads.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            let times = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let times = times.split_whitespace().take(2);
            runnable += times
                .filter_map(|time| time.parse::<u64>().ok())
                .sum::<u64>();
            count += 1;
        }
    }
    (Duration::from_nanos(runnable), count)
}

/// Resident memory in bytes.
#[derive(Clone, Copy)]
pub struct Resident {
    /// At the time of the call.
    pub now: u64,
    /// The highest since the last [`reset_peak`].
    pub peak: u64,
}

/// Resident memory of a process.
///
/// # Panics
///
/// Where the process has ended.
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

/// Sets the peak to what is resident now. Where the kernel does not allow that, the peak is that since the process's
/// start, which can only be higher.
pub fn reset_peak(process: u32) {
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}
