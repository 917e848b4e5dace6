//! The queue alone: texts are (flow, number) pairs, and the test decides their lengths.

use super::turns::MAX_LIVE_STREAK;
use super::*;

type Text = (char, usize);
type TestQueue = Queue<(), Text, Text>;

/// Does the next unit of work: tokenizes, or returns the batch.
fn step(
    queue: &mut TestQueue,
    length: impl Fn(usize) -> usize,
    budget: usize,
) -> Option<Vec<Text>> {
    loop {
        match queue.next_work(0, Some(&|_| budget))? {
            WorkItem::Tokenize { texts } => {
                for (entry, text) in texts {
                    queue.push_tokenized(entry, length(text.1), text);
                }
            }
            WorkItem::RunBatch { texts, .. } => {
                for (entry, _) in &texts {
                    assert!(!queue.finish(*entry).is_empty());
                }
                return Some(texts.into_iter().map(|(_, text)| text).collect());
            }
        }
    }
}

fn key((flow, number): Text) -> TextKey {
    u128::from(u32::from(flow)) << 64 | number as u128
}

/// Asks for a text that is the flow's own.
fn push(queue: &mut TestQueue, flow: FlowId, priority: Priority, text: Text) {
    let id = text.1 as u64;
    queue.push(Request { flow, id }, (), priority, key(text), || text);
}

fn fill(queue: &mut TestQueue, id: FlowId, priority: Priority, flow: char, count: usize) {
    (0..count).for_each(|number| push(queue, id, priority, (flow, number)));
}

fn tokenize(queue: &mut TestQueue, length: usize) -> Vec<Text> {
    let Some(WorkItem::Tokenize { texts }) = queue.next_work(1, Some(&|_| 512)) else {
        panic!("nothing to tokenize")
    };
    for (entry, text) in &texts {
        queue.push_tokenized(*entry, length, *text);
    }
    texts.into_iter().map(|(_, text)| text).collect()
}

fn run(queue: &mut TestQueue) -> Vec<(EntryId, Text)> {
    let Some(WorkItem::RunBatch { texts, .. }) = queue.next_work(1, Some(&|_| 512)) else {
        panic!("nothing to run")
    };
    texts
}

/// Nothing is left of any text.
fn assert_empty(queue: &TestQueue) {
    assert!(!queue.has_work());
    assert!(queue.entries.is_empty() && queue.by_text.is_empty() && queue.pools.is_empty());
    assert!(queue.flows.values().all(|flow| flow.requests.is_empty()));
}

/// On a device batches are cut when they can be run, as full as they can be.
#[test]
fn a_model_on_a_device_gets_no_more_batches_than_it_may_run() {
    let mut queue = TestQueue::new();
    let limits = FlowLimits {
        on_device: true,
        tokenized_texts: 4096,
    };
    let device = queue.open_flow(0, limits);
    let other = queue.open_flow(1, FlowLimits::default());
    fill(&mut queue, device, Priority::Backfill, 'd', 300);
    for _ in 0..3 {
        tokenize(&mut queue, 10);
    }
    let next = |queue: &mut TestQueue| queue.next_work(9, Some(&|_| 512));
    let room = |others| DeviceRoom {
        device: 0,
        budget: 512,
        others,
    };
    // Nine idle workers are no reason for small batches: they could not run them.
    let (_, texts) = queue.next_run(9, |_| Some(room(0))).unwrap();
    assert_eq!(texts.len(), 51);
    let (_, texts) = queue.next_run(0, |_| Some(room(9))).unwrap();
    assert_eq!(texts.len(), 51);
    assert!(queue.next_run(9, |_| None).is_none());
    assert!(next(&mut queue).is_none());

    push(&mut queue, device, Priority::Live, ('d', 999));
    assert_eq!(tokenize(&mut queue, 10), [('d', 999)]);
    push(&mut queue, other, Priority::Backfill, ('o', 1));
    assert_eq!(tokenize(&mut queue, 10), [('o', 1)]);
    assert_eq!(run(&mut queue)[0].1, ('o', 1));
    assert!(next(&mut queue).is_none());

    let (_, texts) = queue.next_run(0, |_| Some(room(0))).unwrap();
    assert_eq!(texts[0].1, ('d', 999));
    assert!(next(&mut queue).is_none());
}

/// Live texts that are not tokenized yet keep no device from running others.
#[test]
fn a_device_runs_what_is_ready_while_live_texts_are_tokenized() {
    let mut queue = TestQueue::new();
    let limits = FlowLimits {
        on_device: true,
        ..FlowLimits::default()
    };
    let flow = queue.open_flow(0, limits);
    push(&mut queue, flow, Priority::Backfill, ('d', 1));
    tokenize(&mut queue, 10);
    push(&mut queue, flow, Priority::Live, ('d', 2));
    let room = DeviceRoom {
        device: 0,
        budget: 512,
        others: 0,
    };
    let (_, texts) = queue.next_run(0, |_| Some(room)).unwrap();
    assert_eq!(texts[0].1, ('d', 1));
    assert_eq!(tokenize(&mut queue, 10), [('d', 2)]);
}

#[test]
fn a_single_text_is_run_immediately() {
    let mut queue = TestQueue::new();
    let id = queue.open_flow(0, FlowLimits::default());
    push(&mut queue, id, Priority::Live, ('a', 7));
    assert_eq!(step(&mut queue, |_| 9, 512), Some(vec![('a', 7)]));
    assert_eq!(step(&mut queue, |_| 9, 512), None);
    assert_empty(&queue);
}

#[test]
fn a_batch_stays_within_the_budget_and_a_longer_text_runs_alone() {
    let mut queue = TestQueue::new();
    let id = queue.open_flow(0, FlowLimits::default());
    fill(&mut queue, id, Priority::Backfill, 'a', 25);
    assert_eq!(step(&mut queue, |_| 10, 100).unwrap().len(), 10);
    assert_eq!(step(&mut queue, |_| 10, 100).unwrap().len(), 10);
    assert_eq!(step(&mut queue, |_| 10, 100).unwrap().len(), 5);
    fill(&mut queue, id, Priority::Backfill, 'a', 2);
    assert_eq!(step(&mut queue, |_| 300, 100).unwrap().len(), 1);
    assert_eq!(step(&mut queue, |_| 300, 100).unwrap().len(), 1);
}

#[test]
fn live_texts_go_before_backfill_and_never_share_its_batches() {
    let mut queue = TestQueue::new();
    let (a, b) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    fill(&mut queue, a, Priority::Backfill, 'a', 10);
    fill(&mut queue, b, Priority::Live, 'b', 3);
    assert_eq!(
        step(&mut queue, |_| 5, 512).unwrap(),
        [('b', 0), ('b', 1), ('b', 2)]
    );
    assert_eq!(step(&mut queue, |_| 5, 512).unwrap().len(), 10);
}

#[test]
fn a_flood_of_live_texts_does_not_starve_the_backfill_of_others() {
    let mut queue = TestQueue::new();
    let (flood, quiet) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    fill(&mut queue, flood, Priority::Live, 'f', 50);
    fill(&mut queue, flood, Priority::Backfill, 'x', 1);
    fill(&mut queue, quiet, Priority::Backfill, 'q', 1);
    let batches: Vec<_> = (0..50)
        .filter_map(|_| step(&mut queue, |_| 10, 10))
        .map(|batch| batch[0].0)
        .collect();
    assert_eq!(
        batches.iter().position(|flow| *flow == 'q'),
        Some(MAX_LIVE_STREAK as usize)
    );
    assert!(
        !batches.contains(&'x'),
        "the live texts of a flow go strictly before its backfill"
    );
}

#[test]
fn a_small_flow_does_not_wait_for_a_large_one() {
    let mut queue = TestQueue::new();
    let (large, small) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    fill(&mut queue, large, Priority::Backfill, 'l', 5000);
    step(&mut queue, |number| 5 + number % 50, 64);
    fill(&mut queue, small, Priority::Backfill, 's', 1);
    let batches: Vec<_> = (0..3)
        .map(|_| step(&mut queue, |number| 5 + number % 50, 64).unwrap())
        .collect();
    assert!(
        batches.iter().flatten().any(|(flow, _)| *flow == 's'),
        "{batches:?}"
    );
}

#[test]
fn flows_of_one_model_share_batches_and_those_of_two_models_do_not() {
    let mut queue = TestQueue::new();
    let flows = [
        (queue.open_flow(0, FlowLimits::default()), 'a'),
        (queue.open_flow(1, FlowLimits::default()), 'b'),
        (queue.open_flow(0, FlowLimits::default()), 'c'),
    ];
    for (id, flow) in flows {
        push(&mut queue, id, Priority::Live, (flow, 0));
    }
    assert_eq!(step(&mut queue, |_| 5, 512).unwrap(), [('a', 0), ('c', 0)]);
    assert_eq!(step(&mut queue, |_| 5, 512).unwrap(), [('b', 0)]);
}

#[test]
fn a_closed_flow_leaves_no_texts_behind() {
    let mut queue = TestQueue::new();
    let (a, b) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    fill(&mut queue, a, Priority::Live, 'a', 3);
    fill(&mut queue, b, Priority::Live, 'b', 1);
    step(&mut queue, |_| 10, 10);
    let (requests, _, tokenized) = queue.close_flow(a);
    assert_eq!((requests.len(), tokenized.len()), (2, 2));
    push(&mut queue, a, Priority::Live, ('a', 9));
    let left: Vec<_> = std::iter::from_fn(|| step(&mut queue, |_| 10, 10))
        .flatten()
        .collect();
    assert_eq!(left, [('b', 0)]);
    assert_empty(&queue);
}

#[test]
fn idle_workers_share_a_small_burst() {
    let mut queue = TestQueue::new();
    let id = queue.open_flow(0, FlowLimits::default());
    fill(&mut queue, id, Priority::Live, 'a', 16);
    tokenize(&mut queue, 16);
    assert_eq!(run(&mut queue).len(), 8);
}

/// Asks for the text ('=', 0), which several ask for.
fn push_equal(queue: &mut TestQueue, flow: FlowId, priority: Priority, id: u64) {
    let text = ('=', 0);
    queue.push(Request { flow, id }, (), priority, key(text), || text);
}

#[test]
fn equal_texts_are_worked_on_once_in_every_stage() {
    let mut queue = TestQueue::new();
    let (a, b) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    let other_model = queue.open_flow(1, FlowLimits::default());
    push_equal(&mut queue, a, Priority::Live, 1);
    push_equal(&mut queue, b, Priority::Live, 1);
    assert_eq!(tokenize(&mut queue, 9).len(), 1);
    push_equal(&mut queue, a, Priority::Live, 2);
    let running = run(&mut queue);
    assert_eq!(running.len(), 1);
    push_equal(&mut queue, b, Priority::Backfill, 2);
    assert!(queue.next_work(1, Some(&|_| 512)).is_none());
    let mut asked: Vec<_> = queue
        .finish(running[0].0)
        .into_iter()
        .map(|(request, ())| (request.flow, request.id))
        .collect();
    asked.sort_unstable();
    assert_eq!(asked, [(a, 1), (a, 2), (b, 1), (b, 2)]);
    assert_empty(&queue);
    push_equal(&mut queue, other_model, Priority::Live, 1);
    push_equal(&mut queue, a, Priority::Live, 3);
    assert_eq!(step(&mut queue, |_| 9, 512).unwrap().len(), 1);
    assert_eq!(step(&mut queue, |_| 9, 512).unwrap().len(), 1);
    assert_empty(&queue);
}

#[test]
fn a_live_text_does_not_wait_for_the_backfill_that_has_it_too() {
    for tokenized in [false, true] {
        let mut queue = TestQueue::new();
        let (a, b) = (
            queue.open_flow(0, FlowLimits::default()),
            queue.open_flow(0, FlowLimits::default()),
        );
        push_equal(&mut queue, a, Priority::Backfill, 1_000_000);
        fill(&mut queue, a, Priority::Backfill, 'a', 100);
        if tokenized {
            tokenize(&mut queue, 9);
        }
        push_equal(&mut queue, b, Priority::Live, 1);
        assert_eq!(step(&mut queue, |_| 9, 512), Some(vec![('=', 0)]));
        let rest: usize = std::iter::from_fn(|| step(&mut queue, |_| 9, 512))
            .map(|batch| batch.len())
            .sum();
        assert_eq!(rest, 100);
        assert_empty(&queue);
    }
}

#[test]
fn a_flow_that_joins_has_its_turn_and_outlives_the_other() {
    let mut queue = TestQueue::new();
    let (a, b) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    fill(&mut queue, a, Priority::Live, 'a', 50);
    push_equal(&mut queue, a, Priority::Live, 1_000_000);
    push_equal(&mut queue, b, Priority::Live, 1);
    let batches: Vec<_> = (0..2)
        .map(|_| step(&mut queue, |_| 10, 10).unwrap())
        .collect();
    assert!(batches.contains(&vec![('=', 0)]), "{batches:?}");
    push_equal(&mut queue, a, Priority::Live, 1_000_001);
    push_equal(&mut queue, b, Priority::Live, 2);
    queue.close_flow(a);
    assert_eq!(step(&mut queue, |_| 10, 10), Some(vec![('=', 0)]));
    assert_empty(&queue);
}

#[test]
fn a_newer_text_takes_the_place_of_the_older_one() {
    let mut queue = TestQueue::new();
    let a = queue.open_flow(0, FlowLimits::default());
    fill(&mut queue, a, Priority::Live, 'a', 3);
    let newer = ('n', 9);
    let request = Request { flow: a, id: 9 };
    assert!(queue.replace(0, request, (), Priority::Live, key(newer), || newer));
    let order: Vec<_> = std::iter::from_fn(|| step(&mut queue, |_| 10, 10))
        .flatten()
        .collect();
    assert_eq!(order, [newer, ('a', 1), ('a', 2)]);
    // The vector of the older one is there already.
    assert!(!queue.replace(1, request, (), Priority::Live, key(newer), || newer));
    assert_eq!(step(&mut queue, |_| 10, 10), Some(vec![newer]));
    assert_empty(&queue);
}

#[test]
fn a_withdrawn_text_is_not_worked_on_unless_another_asks_for_it() {
    let mut queue = TestQueue::new();
    let (a, b) = (
        queue.open_flow(0, FlowLimits::default()),
        queue.open_flow(0, FlowLimits::default()),
    );
    for tokenized in [false, true] {
        push_equal(&mut queue, a, Priority::Live, 1);
        push_equal(&mut queue, b, Priority::Live, 1);
        if tokenized {
            tokenize(&mut queue, 9);
        }
        assert!(queue.withdraw(Request { flow: a, id: 1 }).is_some());
        assert!(queue.withdraw(Request { flow: a, id: 1 }).is_none());
        assert!(queue.withdraw(Request { flow: b, id: 1 }).is_some());
        assert_empty(&queue);
    }
    push_equal(&mut queue, a, Priority::Live, 1);
    tokenize(&mut queue, 9);
    let running = run(&mut queue);
    assert!(queue.withdraw(Request { flow: a, id: 1 }).is_some());
    push_equal(&mut queue, b, Priority::Live, 1);
    assert_eq!(queue.finish(running[0].0).len(), 1);
    assert_empty(&queue);
}

proptest::proptest! {
    #[test]
    fn every_text_is_run_exactly_once_within_the_budget_and_with_little_padding(
        lengths in proptest::collection::vec(3usize..257, 1..700),
        live in proptest::bool::ANY,
    ) {
        let mut queue = TestQueue::new();
        let id = queue.open_flow(0, FlowLimits::default());
        let priority = if live { Priority::Live } else { Priority::Backfill };
        fill(&mut queue, id, priority, 'a', lengths.len());
        let mut seen = Vec::new();
        while let Some(batch) = step(&mut queue, |number| lengths[number], 512) {
            let width = batch.iter().map(|(_, number)| lengths[*number]).max().unwrap();
            assert!(batch.len() == 1 || batch.len() * width <= 512);
            seen.extend(batch.iter().map(|(_, number)| *number));
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..lengths.len()));
    }
}

#[test]
fn a_backlog_is_batched_with_hardly_any_padding() {
    let mut queue = TestQueue::new();
    let id = queue.open_flow(0, FlowLimits::default());
    fill(&mut queue, id, Priority::Backfill, 'a', 3000);
    // A skewed spread of lengths, 3 to 256, mean about 52.
    let length = |number: usize| {
        let share = (number * 7919 % 3000) as f64 / 3000.0;
        3 + (253.0 * share.powi(4)) as usize
    };
    let (mut real, mut padded) = (0, 0);
    while let Some(batch) = step(&mut queue, length, 512) {
        let lengths: Vec<_> = batch.iter().map(|(_, number)| length(*number)).collect();
        real += lengths.iter().sum::<usize>();
        padded += lengths.len() * lengths.iter().max().unwrap();
    }
    assert!(real as f64 / padded as f64 > 0.95, "{real} of {padded}");
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Push { flow: usize, text: u8, live: bool },
    Withdraw { flow: usize, nth: u8 },
    Work,
    Close { flow: usize },
}

fn acts() -> impl proptest::strategy::Strategy<Value = Vec<Act>> {
    use proptest::prelude::*;
    let act = prop_oneof![
        8 => (0..3usize, 0..6u8, any::<bool>()).prop_map(|(flow, text, live)| Act::Push { flow, text, live }),
        2 => (0..3usize, 0..8u8).prop_map(|(flow, nth)| Act::Withdraw { flow, nth }),
        6 => Just(Act::Work),
        1 => (0..3usize).prop_map(|flow| Act::Close { flow }),
    ];
    proptest::collection::vec(act, 1..200)
}

proptest::proptest! {
    #[test]
    fn every_request_is_answered_once_unless_it_was_withdrawn(acts in acts()) {
        let mut queue = TestQueue::new();
        let mut flows: Vec<FlowId> = (0..3).map(|flow| queue.open_flow(flow % 2, FlowLimits::default())).collect();
        let mut open: Vec<Request> = Vec::new();
        let mut next = 0;
        // Work that was begun is finished later, in any order with what else happens.
        let mut begun: Vec<WorkItem<Text, Text>> = Vec::new();
        let end = std::iter::repeat_n(Act::Work, 2000);
        for act in acts.into_iter().chain(end) {
            match act {
                Act::Push { flow, text, live } => {
                    next += 1;
                    let request = Request { flow: flows[flow], id: next };
                    let priority = if live { Priority::Live } else { Priority::Backfill };
                    queue.push(request, (), priority, text.into(), || ('t', text.into()));
                    open.push(request);
                }
                Act::Withdraw { flow, nth } => {
                    let of_flow = open.iter().copied().filter(|request| request.flow == flows[flow]);
                    if let Some(request) = of_flow.clone().nth(nth.into()) {
                        assert!(queue.withdraw(request).is_some());
                        open.retain(|other| *other != request);
                    }
                }
                Act::Close { flow } => {
                    queue.close_flow(flows[flow]);
                    open.retain(|request| request.flow != flows[flow]);
                    flows[flow] = queue.open_flow(flow % 2, FlowLimits::default());
                }
                Act::Work => {
                    begun.extend(queue.next_work(0, Some(&|_| 20)));
                    if next % 3 == 0 || begun.len() > 2 || !queue.has_work() {
                        match begun.pop() {
                            Some(WorkItem::Tokenize { texts }) => {
                                for (entry, text) in texts {
                                    queue.push_tokenized(entry, 3 + text.1, text);
                                }
                            }
                            Some(WorkItem::RunBatch { texts, .. }) => {
                                for (entry, _) in texts {
                                    for (request, ()) in queue.finish(entry) {
                                        assert!(open.contains(&request));
                                        open.retain(|other| *other != request);
                                    }
                                }
                            }
                            None => {}
                        }
                    }
                }
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert_empty(&queue);
    }
}
