//! How many cores inference may use: a rule that is applied five times a second, without clocks or files.
//!
//! While others hardly use the processors, inference uses all of its cores. Otherwise it leaves them idle time, since that
//! is what their next wake-up runs on. Too little of it, and inference uses much less at once; enough, and it uses a little
//! more: decrease quickly, increase slowly, as in congestion control (RFC 5681). Idle time is what tells, because what
//! others use does not show what they lack. A server that does all it can still waits for its disk for a sixth of the time,
//! so the thresholds are above that.

/// What happened on the processors since the last time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// The number of processors.
    pub cores: f64,
    /// What this process and its helpers do not account for, in cores.
    pub others: f64,
    /// What no process used, in cores.
    pub idle: f64,
}

/// Others that use less than this share of the processors, and less than so many cores, are noise. A thousand small
/// transactions a second use four times as much of two cores.
const QUIET_SHARE: f64 = 0.05;
const QUIET_CORES: f64 = 0.25;
/// Less idle time than this share of the processors is hardly any, too little, or enough.
const STARVED: f64 = 0.05;
const TOO_LITTLE_IDLE: f64 = 0.3;
const ENOUGH_IDLE: f64 = 0.4;
const QUICK_DECREASE: f64 = 0.3;
const DECREASE: f64 = 0.6;
const INCREASE: f64 = 1.15;

/// So many times are remembered, which are a second.
const MEMORY: usize = 5;

/// Decides how many cores inference may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Controller {
    /// At least this many.
    floor: f64,
    /// The number of inference threads.
    threads: f64,
    allowed: f64,
    /// What others used the last times, in cores, the last one first.
    others: [f64; MEMORY],
}

impl Controller {
    /// For `threads` threads, of which `floor` (a share) always may run.
    pub(super) fn new(threads: usize, floor: f64) -> Self {
        let threads = threads.max(1) as f64;
        Controller {
            floor: (threads * floor).min(threads),
            threads,
            allowed: threads,
            others: [0.0; MEMORY],
        }
    }

    /// The cores that inference may use from now on.
    pub(super) fn next(&mut self, usage: Usage) -> f64 {
        self.others.rotate_right(1);
        self.others[0] = usage.others;
        let idle = usage.idle / usage.cores;
        if self.others_are_quiet(usage.cores) {
            self.allowed = self.threads;
        } else if idle < STARVED {
            self.allowed *= QUICK_DECREASE;
        } else if idle < TOO_LITTLE_IDLE {
            self.allowed *= DECREASE;
        } else if idle > ENOUGH_IDLE {
            self.allowed *= INCREASE;
        }
        self.allowed = self.allowed.clamp(self.floor, self.threads);
        self.allowed
    }

    /// Whether others hardly use the processors.
    ///
    /// The system counts in hundredths of a second, for each process and each processor, so a single interval tells of users
    /// who are not there. That is why the mean of a second counts, which users who come pass at once, because they use
    /// several times as much. Users come in bursts, too, and that they have left is seen by two intervals.
    fn others_are_quiet(&self, cores: f64) -> bool {
        let quiet = (QUIET_SHARE * cores).min(QUIET_CORES);
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        mean(&self.others) < quiet || mean(&self.others[..2]) < quiet
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "these values are exact")]
mod tests {
    use super::*;

    /// The processors of a machine with this many cores, where others want `demand` cores.
    fn usage(cores: f64, demand: f64, inference: f64) -> Usage {
        let others = demand.min(cores - inference * 0.5);
        Usage {
            cores,
            others,
            idle: (cores - others - inference).max(0.0),
        }
    }

    fn settled(cores: usize, demand: f64) -> f64 {
        let mut controller = Controller::new(cores, 0.1);
        let mut allowed = cores as f64;
        for _ in 0..100 {
            allowed = controller.next(usage(cores as f64, demand, allowed));
        }
        allowed
    }

    #[test]
    fn inference_takes_all_cores_while_others_use_hardly_any() {
        assert_eq!(settled(2, 0.0), 2.0);
        assert_eq!(settled(2, 0.09), 2.0);
        assert_eq!(settled(16, 0.2), 16.0);
    }

    #[test]
    fn it_never_falls_below_its_floor_and_falls_to_it_within_a_second() {
        let mut controller = Controller::new(2, 0.1);
        let mut allowed = 2.0;
        for _ in 0..5 {
            allowed = controller.next(usage(2.0, 8.0, allowed));
        }
        assert_eq!(allowed, 0.2);
        assert_eq!(settled(16, 100.0), 1.6);
        assert_eq!(Controller::new(2, 1.0).next(usage(2.0, 8.0, 2.0)), 2.0);
    }

    #[test]
    fn coarse_counters_are_not_taken_for_users() {
        let mut controller = Controller::new(2, 0.1);
        for turn in 0..100 {
            // Three hundredths of a second in every third interval.
            let others = if turn % 3 == 0 { 0.15 } else { 0.05 };
            let idle = 0.0;
            let usage = Usage {
                cores: 2.0,
                others,
                idle,
            };
            assert_eq!(controller.next(usage), 2.0);
        }
    }

    #[test]
    fn it_yields_at_once_to_users_who_come() {
        let mut controller = Controller::new(2, 0.1);
        for _ in 0..10 {
            controller.next(usage(2.0, 0.0, 2.0));
        }
        assert!(controller.next(usage(2.0, 1.0, 2.0)) < 2.0);
    }

    #[test]
    fn it_leaves_the_others_idle_time_to_wake_up_in() {
        for (cores, demand) in [(2, 0.5), (2, 1.0), (16, 4.0), (16, 9.0)] {
            let allowed = settled(cores, demand);
            let idle = cores as f64 - demand - allowed;
            let share = idle / cores as f64;
            assert!((0.2..0.5).contains(&share), "{cores} {demand}: {allowed}");
        }
    }

    #[test]
    fn it_is_back_within_half_a_second_when_the_others_have_left() {
        let mut controller = Controller::new(2, 0.1);
        for _ in 0..50 {
            controller.next(usage(2.0, 8.0, 0.2));
        }
        controller.next(usage(2.0, 0.05, 0.2));
        assert_eq!(controller.next(usage(2.0, 0.05, 0.2)), 2.0);
    }
}
