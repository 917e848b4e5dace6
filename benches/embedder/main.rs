//! The engine against a bare ONNX Runtime loop, in one run and in turns, so that a noisy machine is noisy for both.
//!
//! The bare loop is the ceiling: texts tokenized beforehand, sorted as a whole, cut by the same budget, one session a
//! thread, no pooling. The engine starts from raw text and gives normalized vectors. Run `make setup` first, then
//! `cargo bench --bench embedder`, or with `-- engine-only` to see what memory the engine takes by itself. With
//! `-- provider=cuda` both use that execution provider, with as many texts and as large batches as a device wants.
//! `texts=N` is another number of texts.
//!
//! `make bench-frameworks` compares the engine with the loops that others embed with: `frameworks.rs`.

mod frameworks;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern::embedding::yielding::Yielding;
use lantern::embedding::{DeviceGroup, Engine, EngineOptions, Model, Priority, TextRole};
use support::bare::{Bare, Batches};
use testkit::paths::runtime;
use testkit::statistics::{median, quantile};
use testkit::{engine, procfs};

const TEXTS: usize = 800;
const ROUNDS: usize = 5;
const LONE_TEXTS: usize = 200;
const BUDGET: usize = 512;
/// On a device.
const DEVICE_TEXTS: usize = 30_000;
const DEVICE_BUDGET: usize = 16_384;

const WORDS: &str = "the of and a in to is was it for with as on river replication slot mountain government \
    photosynthesis quarterly harbour memory Ottoman violin bridge database electron \
    settlement painted 1987 traveled however between species northern championship novel \
    engine railway parliament copper vineyard algorithm winter studied";

fn main() {
    let provider = provider();
    let (count, budget) = match provider.uses_processor() {
        true => (TEXTS, BUDGET),
        false => (DEVICE_TEXTS, DEVICE_BUDGET),
    };
    let count = argument("texts=").map_or(count, |count| count.parse().expect("a number of texts"));
    let texts = texts(count);

    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let options = EngineOptions {
        yielding: Yielding::Off,
        cache_bytes: Some(0),
        providers: vec![provider.clone()],
        ..EngineOptions::default()
    };
    let loaded = tokio.block_on(engine::load_with(&runtime(), options));
    let (engine, model) = loaded.expect("run `make setup` first");

    if let Some(python) = frameworks::python() {
        let engine_vectors = |texts: &[String]| tokio.block_on(vectors(&engine, &model, texts));
        frameworks::compare(&python, engine_vectors);
    } else if std::env::args().any(|argument| argument == "engine-only") {
        let elapsed = tokio.block_on(backlog(&engine, &model, &texts));
        println!("engine only: {:.1} texts/s", rate(texts.len(), elapsed));
    } else {
        let mut bare = Bare::load_on(&provider);
        let batches = bare.prepare(&texts, budget);
        let mut engine_backlog = || tokio.block_on(backlog(&engine, &model, &texts));
        compare_backlogs(&mut bare, &batches, &mut engine_backlog);
        let mut engine_lone = |text: String| {
            let lone = engine.embed(&model, TextRole::Document, vec![text]);
            tokio.block_on(lone).unwrap();
        };
        compare_lone_texts(&mut bare, &mut engine_lone);
    }
    print_memory();
    engine.shutdown();
}

fn compare_backlogs(bare: &mut Bare, batches: &Batches, engine: &mut dyn FnMut() -> Duration) {
    let (mut engine_rates, mut bare_rates) = (Vec::new(), Vec::new());
    let (mut ratios, mut cpu_ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cpu_seconds();
        let bare = bare.rate(batches);
        let between = cpu_seconds();
        let engine = rate(batches.texts, engine());
        cpu_ratios.push((between - before) / (cpu_seconds() - between));
        ratios.push(engine / bare);
        engine_rates.push(engine);
        bare_rates.push(bare);
    }
    let (texts, threads) = (batches.texts, bare.threads());
    let tokens = batches.tokens / texts;
    println!("{texts} texts, mean {tokens} tokens, {threads} threads, medians of {ROUNDS}");
    println!("engine:        {:7.1} texts/s", median(engine_rates));
    println!("bare:          {:7.1} texts/s", median(bare_rates));
    println!(
        "ratio by time: {:7.3}  of {ratios:.3?}",
        median(ratios.clone())
    );
    println!(
        "ratio by CPU:  {:7.3}  of {cpu_ratios:.3?}",
        median(cpu_ratios.clone())
    );
}

fn compare_lone_texts(bare: &mut Bare, engine: &mut dyn FnMut(String)) {
    let (mut engine_times, mut bare_times) = (Vec::new(), Vec::new());
    for number in 0..LONE_TEXTS {
        let text = format!("article number {number} about rivers and bridges");
        bare_times.push(bare.lone(&text).as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(5));
        let started = Instant::now();
        engine(text);
        engine_times.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(5));
    }
    for (name, share) in [("median", 0.5), ("lowest tenth", 0.1)] {
        let (engine, bare) = (
            quantile(engine_times.clone(), share),
            quantile(bare_times.clone(), share),
        );
        let added = engine - bare;
        println!(
            "lone text, {name}: engine {engine:.3} ms, bare {bare:.3} ms, added {added:.3} ms"
        );
    }
}

async fn backlog(engine: &Engine, model: &Model, texts: &[String]) -> Duration {
    let started = Instant::now();
    assert_eq!(vectors(engine, model, texts).await.len(), texts.len());
    started.elapsed()
}

/// The vectors of these texts, as a backfill gets them.
async fn vectors(engine: &Engine, model: &Model, texts: &[String]) -> Vec<Vec<f32>> {
    let (submitter, mut completions) = engine.queue(model, texts.len(), Arc::default());
    for (id, text) in texts.iter().enumerate() {
        submitter.submit(Priority::Backfill, id as u64, text.clone());
    }
    let mut received = Vec::new();
    while received.len() < texts.len() {
        completions.next_many(&mut received, texts.len()).await;
    }
    received.sort_unstable_by_key(|embedded| embedded.id);
    let vectors = received.into_iter().map(|embedded| embedded.vector);
    vectors
        .collect::<Result<_, _>>()
        .expect("every text has a vector")
}

/// Texts of 4 to about 250 words, most of them short, as paragraphs are: half below 30, a tenth above 100.
fn texts(count: usize) -> Vec<String> {
    let vocabulary: Vec<&str> = WORDS.split(' ').collect();
    let mut state: u64 = 42;
    let mut random = move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let text = |_| {
        let share = (random() % 10_000) as f64 / 10_000.0;
        let words = 4 + (246.0 * share.powf(3.3)) as usize;
        (0..words)
            .map(|_| vocabulary[random() % vocabulary.len()])
            .collect::<Vec<_>>()
            .join(" ")
    };
    (0..count).map(text).collect()
}

fn rate(texts: usize, elapsed: Duration) -> f64 {
    texts as f64 / elapsed.as_secs_f64()
}

/// What the argument `provider=NAME[:DEVICE[+DEVICE]]` says.
fn provider() -> DeviceGroup {
    let named = argument("provider=");
    named.map_or_else(DeviceGroup::cpu, |name| {
        name.parse().expect("an execution provider")
    })
}

/// What stands behind this in one of the arguments.
fn argument(name: &str) -> Option<String> {
    std::env::args().find_map(|argument| argument.strip_prefix(name).map(str::to_owned))
}

/// On a busy machine a steadier measure than the clock.
fn cpu_seconds() -> f64 {
    procfs::cpu_time(std::process::id()).as_secs_f64()
}

fn print_memory() {
    let resident = procfs::resident(std::process::id());
    let megabytes = |bytes: u64| bytes >> 20;
    println!(
        "resident: {} MB, at most {} MB",
        megabytes(resident.now),
        megabytes(resident.peak)
    );
}
