//! What the bookkeeping of a row costs.

use std::collections::VecDeque;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lantern::replication::{Lsn, LsnTracker};

const ROWS: u64 = 100_000;

fn one_row_transactions(window: usize) -> Lsn {
    let mut tracker = LsnTracker::new(Lsn::ZERO);
    let mut waiting = VecDeque::with_capacity(window);
    for end in 1..=ROWS {
        let ticket = tracker.begin();
        tracker.row(ticket);
        tracker.commit(Lsn(end));
        waiting.push_back(ticket);
        if waiting.len() == window {
            // From the middle, so that most are finished before an older one.
            let middle = waiting
                .swap_remove_front(window / 2)
                .expect("the window is full");
            tracker.finish(middle);
        }
    }
    waiting
        .into_iter()
        .for_each(|ticket| tracker.finish(ticket));
    tracker.confirmed()
}

fn one_transaction() -> Lsn {
    let mut tracker = LsnTracker::new(Lsn::ZERO);
    let ticket = tracker.begin();
    (0..ROWS).for_each(|_| tracker.row(ticket));
    tracker.commit(Lsn(1));
    (0..ROWS).for_each(|_| tracker.finish(ticket));
    tracker.confirmed()
}

fn tracking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("track a row");
    group.throughput(Throughput::Elements(ROWS));
    for window in [1, 100, 10_000] {
        group.bench_function(
            format!("one-row transactions, {window} unfinished"),
            |bencher| {
                bencher.iter(|| one_row_transactions(window));
            },
        );
    }
    group.bench_function("one transaction", |bencher| bencher.iter(one_transaction));
    group.finish();
}

criterion_group!(benches, tracking);
criterion_main!(benches);
