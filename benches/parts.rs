//! What a text costs beside its inference: tokenizing, pooling, and being gathered into a write-back.
//!
//! Run: `cargo bench --bench parts` (after `make setup`).

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lantern::embedding::{Pooling, PoolingMode, TextTokenizer};
use lantern::pipeline::write::path::DEFAULT_BATCH_ROWS;
use lantern::pipeline::write::queue::{BatchLimit, PendingWrite, WriteQueue};
use support::writer::row;
use testkit::engine::MODEL;
use testkit::paths::runtime;

const SENTENCE: &str = "Semantic search over the text that is in PostgreSQL already. ";
const HIDDEN: usize = 384;
const ROWS: u64 = 4096;

fn tokenizing(criterion: &mut Criterion) {
    let file = runtime().join("models").join(MODEL).join("tokenizer.json");
    let tokenizer = TextTokenizer::load(&file, 256, true).expect("run `make setup` first");
    let mut group = criterion.benchmark_group("tokenize");
    for bytes in [60, 600, 6_000, 600_000] {
        let text = SENTENCE.repeat(bytes / SENTENCE.len() + 1);
        let tokens = tokenizer.ids(&text).expect("tokens").len();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("{bytes} bytes, {tokens} tokens"), |bencher| {
            bencher.iter(|| tokenizer.ids(black_box(&text)).expect("tokens"));
        });
    }
    group.finish();
}

fn pooling(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pool");
    for tokens in [12, 256] {
        let states: Vec<f32> = (0..tokens * HIDDEN).map(|n| (n % 97) as f32).collect();
        group.throughput(Throughput::Elements(tokens as u64));
        for mode in [PoolingMode::Mean, PoolingMode::Cls, PoolingMode::Max] {
            let pooling = Pooling::new(vec![mode]);
            group.bench_function(format!("{mode} of {tokens} tokens"), |bencher| {
                bencher.iter(|| pooling.apply(black_box(&states), HIDDEN));
            });
        }
    }
    group.finish();
}

/// Rows with vectors, of which each key comes `times` times.
fn rows(times: u64) -> Vec<PendingWrite> {
    let row = |number: u64| {
        let row = row((number / times).cast_signed(), SENTENCE);
        PendingWrite::new(row, Some(Vec::new()))
    };
    (0..ROWS).map(row).collect()
}

const LIMIT: BatchLimit = BatchLimit {
    rows: DEFAULT_BATCH_ROWS,
    bytes: 4 << 20,
};

fn batching(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cut write-backs");
    group.throughput(Throughput::Elements(ROWS));
    for (name, times) in [("each row once", 1), ("each row four times", 4)] {
        group.bench_function(name, |bencher| {
            let cut = |rows: Vec<PendingWrite>| {
                let mut ready = WriteQueue::default();
                rows.into_iter().for_each(|row| ready.push(row));
                let mut batches = Vec::new();
                while let batch = ready.next_batch(LIMIT)
                    && !batch.is_empty()
                {
                    batches.push(batch);
                }
                batches
            };
            bencher.iter_batched(|| rows(times), cut, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, tokenizing, pooling, batching);
criterion_main!(benches);
