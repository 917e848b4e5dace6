//! What was observed during a schedule: violations, and the events from which recovery times follow.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::schedule::Loss;

#[derive(Default)]
pub struct Record {
    violations: Mutex<Vec<String>>,
    events: Mutex<Vec<(Instant, Event)>>,
    /// Times when the server was down, the last of which may not have ended.
    outages: Mutex<Vec<(Instant, Option<Instant>)>>,
    statements: Mutex<Statements>,
    take_over: Mutex<Option<(Loss, Duration)>>,
    looks: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Something was done to the job or what it needs.
    Disturbed,
    /// What was missing (server, network, daemon) is back: the job can recover.
    Recoverable,
    /// Whether the job's slot is read from.
    Streaming(bool),
}

/// Figures of the users' statements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statements {
    pub done: u64,
    pub longest: Duration,
    /// The longest observed wait for a lock that a daemon holds or is queued for.
    pub longest_behind_daemon: Duration,
}

impl Record {
    pub fn violation(&self, what: impl Into<String>) {
        self.violations.lock().expect("no panics").push(what.into());
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no panics").clone()
    }

    pub fn disturbed(&self) {
        self.event(Event::Disturbed);
    }

    pub fn recoverable(&self) {
        self.event(Event::Recoverable);
    }

    pub fn streaming(&self, is_streaming: bool) {
        self.event(Event::Streaming(is_streaming));
    }

    fn event(&self, event: Event) {
        self.events
            .lock()
            .expect("no panics")
            .push((Instant::now(), event));
    }

    pub fn outage_begins(&self) {
        self.disturbed();
        self.outages
            .lock()
            .expect("no panics")
            .push((Instant::now(), None));
    }

    pub fn outage_ends(&self) {
        if let Some(last) = self.outages.lock().expect("no panics").last_mut() {
            last.1 = Some(Instant::now());
        }
        self.recoverable();
    }

    /// Whether the server was down at some time since `begin`, or just before.
    pub fn outage_since(&self, begin: Instant) -> bool {
        let outages = self.outages.lock().expect("no panics");
        let over = |end: &Instant| *end + Duration::from_millis(500) < begin;
        !outages
            .iter()
            .all(|(_, end)| end.as_ref().is_some_and(over))
    }

    pub fn statement(&self, took: Duration) {
        let mut statements = self.statements.lock().expect("no panics");
        statements.done += 1;
        statements.longest = statements.longest.max(took);
    }

    pub fn behind_daemon(&self, waited: Duration) {
        let mut statements = self.statements.lock().expect("no panics");
        statements.longest_behind_daemon = statements.longest_behind_daemon.max(waited);
    }

    /// How long it took until others read the slots of a lost daemon.
    pub fn taken_over(&self, loss: Loss, within: Duration) {
        *self.take_over.lock().expect("no panics") = Some((loss, within));
    }

    pub fn take_over(&self) -> Option<(Loss, Duration)> {
        *self.take_over.lock().expect("no panics")
    }

    /// How often the reader of passages has looked.
    pub fn looked(&self, looks: u64) {
        self.looks.store(looks, Ordering::SeqCst);
    }

    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    pub fn statements(&self) -> Statements {
        *self.statements.lock().expect("no panics")
    }

    /// How long it took, each time that it became possible, until the job streamed again. Where another fault came
    /// first, the time does not count.
    pub fn recoveries(&self) -> Vec<Duration> {
        let mut recoveries = Vec::new();
        let mut since = None;
        for (at, event) in self.events.lock().expect("no panics").iter() {
            match event {
                Event::Disturbed => since = None,
                Event::Recoverable => since = Some(*at),
                Event::Streaming(false) => {}
                Event::Streaming(true) => {
                    recoveries.extend(since.take().map(|since: Instant| *at - since));
                }
            }
        }
        recoveries
    }
}
