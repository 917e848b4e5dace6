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
            .filter_map(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid, parse_process(&stat)?.1))
            })
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

/// Whether the process `pid` is there and its name begins with `name`.
pub(super) fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| parse_process(&stat).is_some_and(|(found, _)| found.starts_with(name)))
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

/// The name of a process, and its user and system ticks, from `/proc/<pid>/stat`.
fn parse_process(stat: &str) -> Option<(&str, u64)> {
    // The name is in parentheses, and may have some itself.
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    // Field 3 is the first one after the name; 14 and 15 are utime and stime.
    let mut times = after.split_whitespace().skip(14 - 3);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    Some((name, user + system))
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
        assert_eq!(parse_process(stat), Some(("postgres: a) b", 56)));
        assert_eq!(parse_process("7 (x"), None);
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
        assert!(!is_named(this, "postgres"));
    }
}
