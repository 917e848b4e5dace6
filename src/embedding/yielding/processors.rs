//! Who uses the processors, by what Linux counts: `/proc/stat` for all, `/proc/<pid>/stat` for one process (proc(5)).
//!
//! Only the processors on which this process may run matter. What a hypervisor takes away (`steal`) is not there for
//! anybody.

use std::collections::HashMap;
use std::fs;
use std::io;

use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

use super::controller::Usage;

/// The counters at one moment, in clock ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counters {
    cores: u64,
    busy: u64,
    idle: u64,
    /// Of this process and its helpers, by process id.
    own: HashMap<u32, u64>,
}

impl Counters {
    /// Reads them. Processes of `helpers` that are no more are left out.
    ///
    /// # Errors
    /// Where the system does not have them, or does not show them.
    pub(super) fn read(helpers: &[u32]) -> io::Result<Counters> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let stat = fs::read_to_string("/proc/stat")?;
        let is_allowed = |cpu: usize| allowed.is_set(cpu).unwrap_or(false);
        let (cores, busy, idle) = parse_system(&stat, is_allowed);
        if cores == 0 {
            return Err(io::Error::other("/proc/stat counts no processor"));
        }
        let this = std::process::id();
        let own = std::iter::once(this)
            .chain(helpers.iter().copied())
            .filter_map(|pid| Some((pid, Process::read(pid)?.ticks)))
            .collect::<HashMap<_, _>>();
        if !own.contains_key(&this) {
            return Err(io::Error::other("/proc does not show this process"));
        }
        Ok(Counters {
            cores,
            busy,
            idle,
            own,
        })
    }

    /// What happened since `before`; `None` if that was too short ago to tell.
    pub(super) fn since(&self, before: &Counters) -> Option<Usage> {
        let busy = self.busy.saturating_sub(before.busy);
        let idle = self.idle.saturating_sub(before.idle);
        // A process that has just come in has no earlier count.
        let own: u64 = self
            .own
            .iter()
            .filter_map(|(pid, ticks)| Some(ticks.saturating_sub(*before.own.get(pid)?)))
            .sum();
        let total = busy + idle;
        if total == 0 {
            return None;
        }
        let cores = self.cores as f64;
        let share = |ticks: u64| ticks as f64 / total as f64 * cores;
        Some(Usage {
            cores,
            others: share(busy.saturating_sub(own)),
            idle: share(idle),
        })
    }
}

/// A process, as `/proc/<pid>/stat` shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// The name of its program, of at most 15 bytes.
    pub name: String,
    pub parent: u32,
    /// User and system ticks.
    pub ticks: u64,
}

impl Process {
    /// Reads it; `None` if there is no such process, or the system does not show it.
    pub(super) fn read(pid: u32) -> Option<Process> {
        Process::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Process> {
        // The name is in parentheses, and may have some itself.
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        // Field 3 is the first one after the name; 4 is the parent, 14 and 15 are utime and stime.
        let mut fields = after.split_whitespace().skip(4 - 3);
        let parent = fields.next()?.parse().ok()?;
        let mut times = fields.skip(14 - 5);
        let user: u64 = times.next()?.parse().ok()?;
        let system: u64 = times.next()?.parse().ok()?;
        Some(Process {
            name: name.to_owned(),
            parent,
            ticks: user + system,
        })
    }
}

/// The number of processors, and their busy and idle ticks, from `/proc/stat`.
fn parse_system(stat: &str, is_allowed: impl Fn(usize) -> bool) -> (u64, u64, u64) {
    let mut sums = (0, 0, 0);
    for line in stat.lines() {
        let Some((number, counts)) = line
            .strip_prefix("cpu")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        // The first line, without a number, is the sum of the others.
        if !number.parse().is_ok_and(&is_allowed) {
            continue;
        }
        let counts: Vec<u64> = counts
            .split_whitespace()
            .map_while(|count| count.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq; what guests use is in user.
        let [user, nice, system, idle, iowait, irq, softirq, ..] = counts[..] else {
            continue;
        };
        sums.0 += 1;
        sums.1 += user + nice + system + irq + softirq;
        sums.2 += idle + iowait;
    }
    sums
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "these values are exact")]
mod tests {
    use super::*;

    const STAT: &str = "cpu  30 0 9 300 3 0 6 2 0 0\n\
        cpu0 10 0 3 100 1 0 2 1 0 0\n\
        cpu1 20 0 6 200 2 0 4 1 0 0\n\
        intr 1 2 3\n";

    #[test]
    fn the_processors_that_may_be_used_are_counted() {
        assert_eq!(parse_system(STAT, |_| true), (2, 15 + 30, 101 + 202));
        assert_eq!(parse_system(STAT, |cpu| cpu == 1), (1, 30, 202));
        assert_eq!(parse_system("", |_| true), (0, 0, 0));
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (postgres: a) b) R 1 7 7 0 -1 4194304 1 2 3 4 50 6 7 8 20 0 1 0 99";
        let process = Process {
            name: "postgres: a) b".to_owned(),
            parent: 1,
            ticks: 56,
        };
        assert_eq!(Process::parse(stat), Some(process));
        assert_eq!(Process::parse("7 (x"), None);
    }

    #[test]
    fn what_helpers_use_is_not_that_of_others() {
        let counters = |busy, idle, own: &[(u32, u64)]| Counters {
            cores: 2,
            busy,
            idle,
            own: own.iter().copied().collect(),
        };
        let before = counters(100, 100, &[(1, 10), (2, 0)]);
        let after = counters(130, 110, &[(1, 20), (2, 5), (3, 1000)]);
        let usage = after.since(&before).expect("40 ticks");
        assert_eq!((usage.others, usage.idle), (15.0 / 20.0, 10.0 / 20.0));
        assert_eq!(before.since(&before), None);
    }

    #[test]
    fn this_process_is_seen() {
        let before = Counters::read(&[]).expect("/proc is there");
        let started = std::time::Instant::now();
        while started.elapsed().as_millis() < 100 {
            std::hint::spin_loop();
        }
        let after = Counters::read(&[u32::MAX]).expect("/proc is there");
        let this = std::process::id();
        assert!(after.own[&this] > before.own[&this]);
        assert!(after.since(&before).is_some());
    }
}
