//! What sick servers cost a fleet: four servers of embeddings, one of them slow and one that fails, beside the two healthy
//! ones alone.
//!
//! The servers are stubs with the latency of a request and of a token that a small GPU has; the client is the daemon's.
//! Every vector is compared with the one that its text should have. Run: `cargo bench --bench fleet`; `-- ROUNDS SECONDS`
//! for other figures. Ends with status 1 if a vector is missing or wrong, or the bar is missed.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lantern::embedding::{RemoteFleet, RemoteOptions, TextRole};
use serde_json::json;
use testkit::StubEngine;
use testkit::statistics::median;
use testkit::stub_engine::{Behavior, vector_of};

/// What the fleet must reach, of the throughput of its healthy servers.
const BAR: f64 = 0.9;
const DIMENSIONS: usize = 384;
const BATCH: usize = 32;
/// Calls at the same time: enough for every server to have the next batch waiting.
const CALLS: usize = 32;
/// Connections are opened and servers become known in that time, which does not count.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let figures: Vec<u64> = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let rounds = figures.first().copied().unwrap_or(5);
    let time = Duration::from_secs(figures.get(1).copied().unwrap_or(5));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(compare(rounds, time))
}

/// A server with room for four batches at a time, each of which takes about 100 ms.
fn healthy() -> Behavior {
    Behavior {
        dimensions: DIMENSIONS,
        latency: Duration::from_millis(60),
        latency_per_token: Duration::from_micros(160),
        concurrency: 4,
        ..Behavior::default()
    }
}

fn slow() -> Behavior {
    let healthy = healthy();
    Behavior {
        latency: healthy.latency * 8,
        latency_per_token: healthy.latency_per_token * 8,
        ..healthy
    }
}

/// Fails two of three requests, after the time that a right answer takes.
fn failing() -> Behavior {
    Behavior {
        failure_rate: 0.66,
        ..healthy()
    }
}

async fn compare(rounds: u64, time: Duration) -> ExitCode {
    let names = ["healthy", "healthy", "slow", "failing"];
    let stubs = [healthy(), healthy(), slow(), failing()].map(|behavior| {
        let stub = StubEngine::start();
        stub.set(behavior);
        stub.forget();
        stub
    });
    let (mut alone, mut together, mut wrong) = (Vec::new(), Vec::new(), 0);
    println!("{rounds} rounds of {} s, texts a second", time.as_secs());
    println!(
        "{:>6} {:>12} {:>12} {:>6}",
        "round", "healthy two", "all four", "ratio"
    );
    for round in 1..=rounds {
        let two = run(&stubs[..2], time).await;
        let four = run(&stubs, time).await;
        println!(
            "{round:>6} {:>12.0} {:>12.0} {:>6.2}",
            two.rate,
            four.rate,
            four.rate / two.rate
        );
        alone.push(two.rate);
        together.push(four.rate);
        wrong += two.wrong + four.wrong;
    }
    let ratios = alone
        .iter()
        .zip(&together)
        .map(|(alone, together)| together / alone);
    let ratio = median(ratios);
    let (alone, together) = (
        median(alone.iter().copied()),
        median(together.iter().copied()),
    );
    println!(
        "{:>6} {alone:>12.0} {together:>12.0} {ratio:>6.2}",
        "median"
    );
    for (name, stub) in names.iter().zip(&stubs) {
        println!(
            "{name:>8}: {:>6} requests, {:>7} texts",
            stub.requests(),
            stub.embedded()
        );
    }
    println!("texts without their vector: {wrong}");
    println!("bar: {ratio:.2} of the healthy ones, {BAR:.2} wanted");
    match wrong == 0 && ratio >= BAR {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

struct Measured {
    rate: f64,
    wrong: u64,
}

/// Embeds as fast as these servers do, for a while.
async fn run(stubs: &[StubEngine], time: Duration) -> Measured {
    let urls: Vec<String> = stubs.iter().map(StubEngine::url).collect();
    let parameters = json!({ "base_url": urls }).to_string();
    let options = RemoteOptions::new("openai", "stub", Some(&parameters)).expect("valid options");
    let fleet = RemoteFleet::new(&options).expect("a fleet");
    let (counted, wrong, next) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let begin = Instant::now() + WARM_UP;
    let end = begin + time;
    let call = || async {
        while Instant::now() < end {
            let texts = batch(next.fetch_add(1, Ordering::Relaxed));
            let results = fleet.embed_each(&options, TextRole::Document, &texts).await;
            let right = results.map_or(0, |results| {
                let pairs = texts.iter().zip(&results);
                let is_right =
                    |(text, result): &(&Arc<str>, &Result<_, _>)| is_vector_of(text, result);
                pairs.filter(is_right).count()
            });
            wrong.fetch_add((BATCH - right) as u64, Ordering::Relaxed);
            let now = Instant::now();
            if now >= begin && now < end {
                counted.fetch_add(right as u64, Ordering::Relaxed);
            }
        }
    };
    join_all((0..CALLS).map(|_| call())).await;
    Measured {
        rate: counted.into_inner() as f64 / time.as_secs_f64(),
        wrong: wrong.into_inner(),
    }
}

fn is_vector_of(
    text: &str,
    result: &Result<lantern::embedding::RemoteVector, lantern::embedding::RemoteError>,
) -> bool {
    let vector = result.as_ref().map(|result| &result.vector);
    vector.is_ok_and(|vector| *vector == vector_of(text, DIMENSIONS))
}

/// Texts of eight words, other ones in each batch.
fn batch(number: u64) -> Vec<Arc<str>> {
    let text = |place| format!("text {place} of batch {number} has eight words").into();
    (0..BATCH).map(text).collect()
}
