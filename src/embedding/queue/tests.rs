//! The queue alone: texts are (flow, number) pairs, and the test decides their lengths.

use super::*;

type TestQueue = Queue<(char, usize), (char, usize)>;

/// Does the next unit of work: tokenizes, or returns the batch.
fn step(queue: &mut TestQueue, length: impl Fn(usize) -> usize) -> Option<Vec<(char, usize)>> {
    loop {
        match queue.next_work(0)? {
            WorkItem::Tokenize { priority, texts } => {
                for (id, text) in texts {
                    queue.push_tokenized(id, priority, length(text.1), text);
                }
            }
            WorkItem::RunBatch { texts } => return Some(texts),
        }
    }
}

fn fill(queue: &mut TestQueue, id: FlowId, priority: Priority, flow: char, count: usize) {
    (0..count).for_each(|number| queue.push(id, priority, (flow, number)));
}

#[test]
fn a_single_text_is_run_immediately() {
    let mut queue = TestQueue::new(512);
    let id = queue.open_flow(0);
    queue.push(id, Priority::Live, ('a', 7));
    assert_eq!(step(&mut queue, |_| 9), Some(vec![('a', 7)]));
    assert!(!queue.has_work());
    assert_eq!(step(&mut queue, |_| 9), None);
}

#[test]
fn a_batch_stays_within_the_budget_and_a_longer_text_runs_alone() {
    let mut queue = TestQueue::new(100);
    let id = queue.open_flow(0);
    fill(&mut queue, id, Priority::Backfill, 'a', 25);
    assert_eq!(step(&mut queue, |_| 10).unwrap().len(), 10);
    assert_eq!(step(&mut queue, |_| 10).unwrap().len(), 10);
    assert_eq!(step(&mut queue, |_| 10).unwrap().len(), 5);
    fill(&mut queue, id, Priority::Backfill, 'a', 2);
    assert_eq!(step(&mut queue, |_| 300).unwrap().len(), 1);
    assert_eq!(step(&mut queue, |_| 300).unwrap().len(), 1);
}

#[test]
fn live_texts_go_before_backfill_and_never_share_its_batches() {
    let mut queue = TestQueue::new(512);
    let (a, b) = (queue.open_flow(0), queue.open_flow(0));
    fill(&mut queue, a, Priority::Backfill, 'a', 10);
    fill(&mut queue, b, Priority::Live, 'b', 3);
    assert_eq!(
        step(&mut queue, |_| 5).unwrap(),
        [('b', 0), ('b', 1), ('b', 2)]
    );
    assert_eq!(step(&mut queue, |_| 5).unwrap().len(), 10);
}

#[test]
fn a_flood_of_live_texts_does_not_starve_the_backfill_of_others() {
    let mut queue = TestQueue::new(10);
    let (flood, quiet) = (queue.open_flow(0), queue.open_flow(0));
    fill(&mut queue, flood, Priority::Live, 'f', 50);
    fill(&mut queue, flood, Priority::Backfill, 'x', 1);
    fill(&mut queue, quiet, Priority::Backfill, 'q', 1);
    let batches: Vec<_> = (0..50)
        .filter_map(|_| step(&mut queue, |_| 10))
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
    let mut queue = TestQueue::new(64);
    let (large, small) = (queue.open_flow(0), queue.open_flow(0));
    fill(&mut queue, large, Priority::Backfill, 'l', 5000);
    step(&mut queue, |number| 5 + number % 50);
    fill(&mut queue, small, Priority::Backfill, 's', 1);
    let batches: Vec<_> = (0..3)
        .map(|_| step(&mut queue, |number| 5 + number % 50).unwrap())
        .collect();
    assert!(
        batches.iter().flatten().any(|(flow, _)| *flow == 's'),
        "{batches:?}"
    );
}

#[test]
fn flows_of_one_model_share_batches_and_those_of_two_models_do_not() {
    let mut queue = TestQueue::new(512);
    let flows = [
        (queue.open_flow(0), 'a'),
        (queue.open_flow(1), 'b'),
        (queue.open_flow(0), 'c'),
    ];
    for (id, flow) in flows {
        queue.push(id, Priority::Live, (flow, 0));
    }
    assert_eq!(step(&mut queue, |_| 5).unwrap(), [('a', 0), ('c', 0)]);
    assert_eq!(step(&mut queue, |_| 5).unwrap(), [('b', 0)]);
}

#[test]
fn a_closed_flow_leaves_no_texts_behind() {
    let mut queue = TestQueue::new(10);
    let (a, b) = (queue.open_flow(0), queue.open_flow(0));
    fill(&mut queue, a, Priority::Live, 'a', 3);
    fill(&mut queue, b, Priority::Live, 'b', 1);
    step(&mut queue, |_| 10);
    queue.close_flow(a);
    queue.push(a, Priority::Live, ('a', 9));
    queue.push_tokenized(a, Priority::Live, 10, ('a', 9));
    let left: Vec<_> = std::iter::from_fn(|| step(&mut queue, |_| 10))
        .flatten()
        .collect();
    assert_eq!(left, [('b', 0)]);
    assert!(queue.pools.is_empty());
}

#[test]
fn idle_workers_share_a_small_burst() {
    let mut queue = TestQueue::new(512);
    let id = queue.open_flow(0);
    fill(&mut queue, id, Priority::Live, 'a', 16);
    let Some(WorkItem::Tokenize { priority, texts }) = queue.next_work(1) else {
        panic!("nothing to tokenize")
    };
    texts
        .into_iter()
        .for_each(|(id, text)| queue.push_tokenized(id, priority, 16, text));
    let Some(WorkItem::RunBatch { texts }) = queue.next_work(1) else {
        panic!("nothing to run")
    };
    assert_eq!(texts.len(), 8);
}

proptest::proptest! {
    #[test]
    fn every_text_is_run_exactly_once_within_the_budget_and_with_little_padding(
        lengths in proptest::collection::vec(3usize..257, 1..700),
        live in proptest::bool::ANY,
    ) {
        let mut queue = TestQueue::new(512);
        let id = queue.open_flow(0);
        let priority = if live { Priority::Live } else { Priority::Backfill };
        fill(&mut queue, id, priority, 'a', lengths.len());
        let mut seen = Vec::new();
        while let Some(batch) = step(&mut queue, |number| lengths[number]) {
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
    let mut queue = TestQueue::new(512);
    let id = queue.open_flow(0);
    fill(&mut queue, id, Priority::Backfill, 'a', 3000);
    // A skewed spread of lengths, 3 to 256, mean about 52.
    let length = |number: usize| {
        let share = (number * 7919 % 3000) as f64 / 3000.0;
        3 + (253.0 * share.powi(4)) as usize
    };
    let (mut real, mut padded) = (0, 0);
    while let Some(batch) = step(&mut queue, length) {
        let lengths: Vec<_> = batch.iter().map(|(_, number)| length(*number)).collect();
        real += lengths.iter().sum::<usize>();
        padded += lengths.len() * lengths.iter().max().unwrap();
    }
    assert!(real as f64 / padded as f64 > 0.95, "{real} of {padded}");
}
