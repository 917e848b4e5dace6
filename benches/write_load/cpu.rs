//! Processor time from `/proc` (proc_pid_stat(5)), which the noise of a shared machine does not change.

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

/// How many children a process has that have not ended.
pub fn children(process: u32) -> usize {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().count()
}

/// `fields` are counted from 0 behind the name of the program, which may hold anything.
fn ticks(process: u32, fields: [usize; 2]) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let all: Vec<&str> = rest.split_whitespace().collect();
    let sum: u32 = fields
        .iter()
        .filter_map(|field| all.get(*field)?.parse::<u32>().ok())
        .sum();
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs(sum.into()) / u32::try_from(hertz).unwrap_or(100)
}
