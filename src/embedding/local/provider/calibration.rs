//! How large the batches of a model are on a device: as large as its throughput grows.
//!
//! That depends on the device, the model and the precision of its graph, so it is measured when the model is loaded, with
//! as many runs at the same time as there will be later.

use std::thread;
use std::time::{Duration, Instant};

use super::self_test::repeated;
use crate::embedding::local::base::ModelBase;
use crate::embedding::local::session::SharedSession;
use crate::embedding::role::TextRole;

/// Padded tokens of the smallest and the largest batch that is tried.
const SMALLEST: usize = 1024;
const LARGEST: usize = 65_536;
/// Tokens of each text, as many as a paragraph has.
const WIDTH: usize = 64;
/// How long it may take.
const TIME: Duration = Duration::from_secs(3);
/// Among batches that are nearly as good as the best, the smallest one delays a text least, and needs least memory.
const GOOD: f64 = 0.95;
/// Twice the size is no better unless it has so many times the throughput.
const GROWTH: f64 = 1.02;
/// Runs of each size, of which the shortest counts.
const RUNS: usize = 3;

/// The best size of batches for the model on this session, in padded tokens; `None` where there is no choice, or nothing was
/// computed.
pub(crate) fn batch_tokens(base: &ModelBase, session: &SharedSession) -> Option<usize> {
    if session.fixed_rows().is_some() || session.is_packed() {
        return None;
    }
    let sentence = base.tokenizer.ids("a plain sentence of some words").ok()?;
    let text = repeated(&sentence, WIDTH.min(base.max_tokens));
    if text.is_empty() {
        return None;
    }
    best(|tokens| {
        let text = base.plain(&text, TextRole::Document);
        let rows = vec![text; (tokens / text.ids.len()).max(1)];
        let run = || base.pooled(session, &rows, session.kind(), &base.files.pooling);
        let began = Instant::now();
        let computed = thread::scope(|scope| {
            let others = (1..session.runs().unwrap_or(1)).map(|_| scope.spawn(run));
            let others: Vec<_> = others.collect();
            let own = run().is_ok();
            let others = others.into_iter().map(|run| run.join());
            others.fold(own, |all, run| all && run.is_ok_and(|run| run.is_ok()))
        });
        computed.then(|| began.elapsed())
    })
}

/// The best size, where `run` runs a batch of so many padded tokens and returns how long it took, or `None` if that did not
/// work.
fn best(mut run: impl FnMut(usize) -> Option<Duration>) -> Option<usize> {
    let mut rates: Vec<(usize, f64)> = Vec::new();
    let (mut tokens, mut spent, mut most) = (SMALLEST, Duration::ZERO, 0.0);
    'sizes: while tokens <= LARGEST {
        let mut shortest = Duration::MAX;
        // The first run also gets the memory.
        for _ in 0..RUNS {
            let Some(took) = run(tokens) else {
                break 'sizes;
            };
            shortest = shortest.min(took);
            spent += took;
            if spent + took > TIME {
                break;
            }
        }
        let rate = tokens as f64 / shortest.as_secs_f64().max(1e-9);
        rates.push((tokens, rate));
        // Larger ones would only take memory, which the device's allocator keeps. The next runs take twice as long.
        if rate < most * GROWTH || spent + 2 * shortest > TIME {
            break;
        }
        most = rate;
        tokens *= 2;
    }
    let most = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let good = rates.iter().find(|(_, rate)| *rate >= GOOD * most);
    good.map(|(tokens, _)| *tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each run takes 2 ms, and 1 ms for so many tokens.
    fn device(tokens_per_ms: usize) -> impl Fn(usize) -> Duration {
        move |tokens| Duration::from_micros(2000 + (tokens * 1000 / tokens_per_ms) as u64)
    }

    #[test]
    fn a_fast_device_gets_larger_batches() {
        let slow = device(64);
        assert_eq!(best(|tokens| Some(slow(tokens))), Some(2048));
        let fast = device(1024);
        assert_eq!(best(|tokens| Some(fast(tokens))), Some(32_768));
    }

    #[test]
    fn no_larger_batch_is_tried_where_twice_the_size_has_not_helped() {
        let mut largest = 0;
        best(|tokens| {
            largest = largest.max(tokens);
            Some(Duration::from_nanos(tokens as u64))
        });
        assert_eq!(largest, 2 * SMALLEST);
    }

    #[test]
    fn it_ends_in_time_and_where_the_memory_does() {
        let mut spent = Duration::ZERO;
        let slow = device(1);
        best(|tokens| {
            spent += slow(tokens);
            Some(slow(tokens))
        });
        assert!(spent < TIME, "{spent:?}");
        let fast = device(1024);
        let run = |tokens| (tokens <= 4096).then(|| fast(tokens));
        assert_eq!(best(run), Some(4096));
        assert_eq!(best(|_| None), None);
    }
}
