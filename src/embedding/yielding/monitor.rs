//! The thread that looks at the processors five times a second while inference runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::controller::{Controller, Usage};
use super::gate::Gate;
use super::processors::{Counters, is_named};

/// How often it looks. In the experiments that chose the rule, users were back at their speed within half a second.
const INTERVAL: Duration = Duration::from_millis(200);

/// Processes on this machine that work for this one, such as the server processes of its sessions. What they use is not
/// what others use. Clones share the list.
#[derive(Debug, Clone, Default)]
pub struct Processes(Arc<Mutex<BTreeMap<u32, usize>>>);

/// A process that is on the list until this is dropped.
#[derive(Debug)]
pub struct OwnProcess {
    list: Processes,
    pid: u32,
}

impl Processes {
    /// Adds the process with this id, if this machine has one whose name begins with `name`. In a container the id may be
    /// that of another one, or of none.
    #[must_use]
    pub fn add(&self, pid: u32, name: &str) -> Option<OwnProcess> {
        if !is_named(pid, name) {
            return None;
        }
        *self.lock().entry(pid).or_default() += 1;
        Some(OwnProcess {
            list: self.clone(),
            pid,
        })
    }

    fn ids(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        let mut list = self.list.lock();
        if let Some(count) = list.get_mut(&self.pid) {
            *count -= 1;
            if *count == 0 {
                list.remove(&self.pid);
            }
        }
    }
}

/// Opens and closes the gate by what others use.
pub(crate) struct Monitor {
    gate: Arc<Gate>,
    own: Processes,
    controller: Controller,
    threads: usize,
    /// Whether inference yields now, for the log.
    yields: bool,
}

impl Monitor {
    /// For `threads` inference threads behind `gate`, which always may use the share `floor` of their cores.
    pub(crate) fn new(gate: Arc<Gate>, own: Processes, threads: usize, floor: f64) -> Self {
        Monitor {
            gate,
            own,
            controller: Controller::new(threads, floor),
            threads,
            yields: false,
        }
    }

    /// Works until the gate is closed, or the system does not tell who uses its processors.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.watch() {
            tracing::info!(
                "the system does not tell who uses its processors ({error}), so inference does not yield; limit it with \
                 --threads"
            );
            self.gate.allow(self.threads as f64);
        }
    }

    fn watch(&mut self) -> std::io::Result<()> {
        let mut before = Counters::read(&self.own.ids())?;
        let mut was_idle = true;
        while self.gate.wait_until_engaged() {
            if was_idle {
                before = Counters::read(&self.own.ids())?;
            }
            if !self.gate.pause(INTERVAL) {
                break;
            }
            let now = Counters::read(&self.own.ids())?;
            if let Some(usage) = now.since(&before) {
                self.adjust(usage);
            }
            before = now;
            was_idle = !self.gate.is_engaged();
        }
        Ok(())
    }

    fn adjust(&mut self, usage: Usage) {
        let allowed = self.controller.next(usage);
        self.gate.allow(allowed);
        let yields = allowed < self.threads as f64;
        tracing::trace!(
            allowed,
            others = usage.others,
            idle = usage.idle,
            "cores of inference"
        );
        if yields != self.yields {
            self.yields = yields;
            let state = if yields {
                "inference yields to others, who use"
            } else {
                "inference uses all of its cores again: others use"
            };
            tracing::debug!("{state} {:.1} of {} cores", usage.others, usage.cores);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_listed_as_long_as_somebody_wants_it() {
        let list = Processes::default();
        let this = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").expect("a name");
        assert!(list.add(this, "postgres").is_none());
        let first = list.add(this, name.trim_end()).expect("it is there");
        let second = list.add(this, name.trim_end()).expect("it is there");
        drop(first);
        assert_eq!(list.ids(), [this]);
        drop(second);
        assert!(list.ids().is_empty());
    }
}
