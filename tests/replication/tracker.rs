//! The LSN tracker against a model that keeps all transactions and counts again at each step.

use lantern::replication::{Lsn, LsnTracker, Ticket};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Rows(u64),
    /// Of any transaction so far, finished and forgotten ones included.
    Finish(Index),
    Commit(u64),
    Keepalive(u64),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Begin),
        4 => (0_u64..4).prop_map(Step::Rows),
        12 => any::<Index>().prop_map(Step::Finish),
        4 => (1_u64..100).prop_map(Step::Commit),
        1 => (0_u64..100).prop_map(Step::Keepalive),
        1 => Just(Step::Reset),
    ]
}

/// A position of the stream that can be confirmed when all rows before it are finished.
struct Entry {
    ticket: Option<Ticket>,
    outstanding: u64,
    end: Option<u64>,
}

struct Model {
    start: u64,
    /// The current position of the stream.
    position: u64,
    entries: Vec<Entry>,
}

impl Model {
    fn is_open(&self) -> bool {
        self.entries.last().is_some_and(|entry| entry.end.is_none())
    }

    fn confirmed(&self) -> u64 {
        let done = self
            .entries
            .iter()
            .take_while(|entry| entry.outstanding == 0);
        done.map_while(|entry| entry.end)
            .last()
            .unwrap_or(self.start)
    }

    fn outstanding(&self) -> u64 {
        self.entries.iter().map(|entry| entry.outstanding).sum()
    }
}

/// The tracker and its model, with every ticket so far.
struct Pair {
    tracker: LsnTracker,
    model: Model,
    tickets: Vec<Ticket>,
}

impl Pair {
    fn new() -> Pair {
        let model = Model {
            start: 1000,
            position: 1000,
            entries: Vec::new(),
        };
        Pair {
            tracker: LsnTracker::new(Lsn(1000)),
            model,
            tickets: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin if !self.model.is_open() => {
                let ticket = self.tracker.begin();
                assert!(!self.tickets.contains(&ticket));
                self.tickets.push(ticket);
                self.model.entries.push(Entry {
                    ticket: Some(ticket),
                    outstanding: 0,
                    end: None,
                });
            }
            Step::Rows(rows) if self.model.is_open() => {
                let entry = self.model.entries.last_mut().unwrap();
                entry.outstanding += rows;
                self.tracker.add(entry.ticket.unwrap(), rows);
            }
            Step::Commit(distance) if self.model.is_open() => {
                self.model.position += distance;
                self.model.entries.last_mut().unwrap().end = Some(self.model.position);
                self.tracker.commit(Lsn(self.model.position));
            }
            Step::Keepalive(distance) => {
                let position = self.model.position + distance;
                self.tracker.keepalive(Lsn(position));
                if !self.model.is_open() {
                    self.model.position = position;
                    let end = Some(position);
                    self.model.entries.push(Entry {
                        ticket: None,
                        outstanding: 0,
                        end,
                    });
                }
            }
            Step::Finish(index) if !self.tickets.is_empty() => {
                let ticket = *index.get(&self.tickets);
                self.tracker.finish(ticket);
                let entry = self
                    .model
                    .entries
                    .iter_mut()
                    .find(|entry| entry.ticket == Some(ticket));
                if let Some(entry) = entry {
                    entry.outstanding = entry.outstanding.saturating_sub(1);
                }
            }
            Step::Reset => {
                self.model.start = self.model.confirmed();
                self.model.entries.clear();
                self.tracker.reset(Lsn(self.model.start));
            }
            _ => {}
        }
    }

    fn check(&self) {
        assert_eq!(self.tracker.confirmed(), Lsn(self.model.confirmed()));
        assert_eq!(self.tracker.outstanding_rows(), self.model.outstanding());
        let is_idle = !self.model.is_open() && self.model.outstanding() == 0;
        assert_eq!(self.tracker.is_idle(), is_idle);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_tracker_agrees_with_the_model_at_every_step(steps in vec(step(), 0..200)) {
        let mut pair = Pair::new();
        let mut confirmed = Lsn::ZERO;
        for step in &steps {
            pair.take(step);
            pair.check();
            prop_assert!(pair.tracker.confirmed() >= confirmed);
            confirmed = pair.tracker.confirmed();
        }
    }

    #[test]
    fn the_end_is_confirmed_when_all_rows_are_finished_in_any_order(
        transactions in vec(vec(any::<u32>(), 0..5), 1..60),
    ) {
        let mut tracker = LsnTracker::new(Lsn::ZERO);
        let mut rows = Vec::new();
        for (places, end) in transactions.iter().zip(1..) {
            let ticket = tracker.begin();
            places.iter().for_each(|&place| {
                tracker.row(ticket);
                rows.push((place, Lsn(end), ticket));
            });
            tracker.commit(Lsn(end));
        }
        rows.sort_by_key(|&(place, ..)| place);
        for (index, &(_, _, ticket)) in rows.iter().enumerate() {
            let first_unfinished = rows[index..].iter().map(|&(_, end, _)| end).min().unwrap();
            prop_assert!(tracker.confirmed() < first_unfinished);
            tracker.finish(ticket);
        }
        prop_assert!(tracker.is_idle());
        prop_assert_eq!(tracker.confirmed(), Lsn(transactions.len() as u64));
    }
}
