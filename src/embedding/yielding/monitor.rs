//! The thread that looks at the processors five times a second while inference runs.

use std::sync::Arc;
use std::time::Duration;

use super::controller::{Controller, Usage};
use super::gate::Gate;
use super::processes::Processes;
use super::processors::Counters;
use super::servers::Servers;

/// How often it looks. In the experiments that chose the rule, users were back at their speed within half a second.
const INTERVAL: Duration = Duration::from_millis(200);

/// Opens and closes the gate by what others use.
pub(crate) struct Monitor {
    gate: Arc<Gate>,
    own: Processes,
    servers: Servers,
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
            servers: Servers::default(),
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
        let mut before = self.count()?;
        let mut was_idle = true;
        while self.gate.wait_until_engaged() {
            if was_idle {
                before = self.count()?;
            }
            if !self.gate.pause(INTERVAL) {
                break;
            }
            let now = self.count()?;
            if let Some(usage) = now.since(&before) {
                self.adjust(usage);
            }
            before = now;
            was_idle = !self.gate.is_engaged();
        }
        Ok(())
    }

    fn count(&mut self) -> std::io::Result<Counters> {
        let mut own = self.own.ids();
        own.extend(self.servers.helpers(&own));
        Counters::read(&own)
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
