//! The engine against a bare ONNX Runtime loop, in one run and in turns, so that a noisy machine is noisy for both.
//!
//! The bare loop is the ceiling: texts tokenized beforehand, sorted as a whole, cut by the same budget, one session a
//! thread, no pooling. The engine starts from raw text and gives normalised vectors. Run `make setup` first, then
//! `cargo bench --bench embedder`.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern::embedding::{
    Catalogue, Engine, EngineOptions, Model, ModelName, Priority, TextRole, onnx_environment,
};
use ort::session::Session;
use ort::value::TensorRef;
use tokenizers::{Tokenizer, TruncationParams};

const TEXTS: usize = 1200;
const ROUNDS: usize = 7;
const LONE_TEXTS: usize = 60;
const BUDGET: usize = 512;

const WORDS: &[&str] = &[
    "the",
    "of",
    "and",
    "a",
    "in",
    "to",
    "is",
    "was",
    "it",
    "for",
    "with",
    "as",
    "on",
    "river",
    "replication",
    "slot",
    "mountain",
    "government",
    "photosynthesis",
    "quarterly",
    "harbour",
    "memory",
    "Ottoman",
    "violin",
    "bridge",
    "database",
    "electron",
    "settlement",
    "painted",
    "1987",
    "travelled",
    "however",
    "between",
    "species",
    "northern",
    "championship",
    "novel",
    "engine",
    "railway",
    "parliament",
    "copper",
    "vineyard",
    "algorithm",
    "winter",
    "studied",
];

fn main() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime");
    let folder = runtime.join("models").join(ModelName::DEFAULT);
    assert!(folder.is_dir(), "run `make setup` first");
    let texts = texts();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut bare = Bare::new(&runtime, &folder, threads, &texts);

    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let options = EngineOptions {
        data_path: runtime.clone(),
        ..EngineOptions::default()
    };
    let engine = Engine::new(Catalogue::new(runtime.join("models")), options);
    let model = tokio
        .block_on(engine.model(&ModelName::DEFAULT.parse().unwrap()))
        .unwrap();

    println!(
        "{TEXTS} texts, mean {} tokens, {threads} threads",
        bare.tokens() / TEXTS
    );
    let (mut engine_rates, mut bare_rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let bare = rate(bare.backlog());
        let engine = rate(tokio.block_on(backlog(&engine, &model, &texts)));
        ratios.push(engine / bare);
        engine_rates.push(engine);
        bare_rates.push(bare);
    }
    println!(
        "backlog, engine:  {:7.1} texts/s (median of {ROUNDS})",
        median(&mut engine_rates)
    );
    println!("backlog, bare:    {:7.1} texts/s", median(&mut bare_rates));
    println!(
        "backlog, ratio:   {:7.3}   {ratios:.3?}",
        median(&mut ratios.clone())
    );

    let (mut engine_times, mut bare_times, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..LONE_TEXTS {
        let text = format!("article number {number} about rivers and bridges");
        let bare = bare.lone(&text).as_secs_f64() * 1e3;
        std::thread::sleep(Duration::from_millis(5));
        let started = Instant::now();
        tokio
            .block_on(engine.embed(&model, TextRole::Document, vec![text]))
            .unwrap();
        let engine = started.elapsed().as_secs_f64() * 1e3;
        std::thread::sleep(Duration::from_millis(5));
        added.push(engine - bare);
        engine_times.push(engine);
        bare_times.push(bare);
    }
    println!(
        "lone text, engine: {:6.3} ms (median of {LONE_TEXTS})",
        median(&mut engine_times)
    );
    println!("lone text, bare:   {:6.3} ms", median(&mut bare_times));
    println!("lone text, added:  {:6.3} ms", median(&mut added));
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status
            .lines()
            .filter(|line| line.starts_with("VmHWM"))
            .for_each(|line| println!("{line}"));
    }
    engine.shutdown();
}

async fn backlog(engine: &Engine, model: &Model, texts: &[String]) -> Duration {
    let started = Instant::now();
    let (submitter, mut completions) = engine.queue(model, texts.len());
    for (id, text) in texts.iter().enumerate() {
        submitter.submit(Priority::Backfill, id as u64, text.clone());
    }
    let mut received = Vec::new();
    while received.len() < texts.len() {
        completions.next_many(&mut received, texts.len()).await;
    }
    assert!(received.iter().all(|embedded| embedded.vector.is_ok()));
    started.elapsed()
}

/// ONNX Runtime with nothing around it.
struct Bare {
    tokenizer: Tokenizer,
    sessions: Vec<Session>,
    batches: Vec<Vec<Vec<i64>>>,
}

impl Bare {
    fn new(runtime: &Path, folder: &Path, threads: usize, texts: &[String]) -> Self {
        let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: 256,
                ..Default::default()
            }))
            .unwrap();
        let environment = onnx_environment(None, runtime).unwrap();
        let session = || {
            let builder = Session::builder(&environment)
                .unwrap()
                .with_intra_threads(1)
                .unwrap();
            let spinning = ("session.intra_op.allow_spinning", "0");
            builder
                .with_config_entry(spinning.0, spinning.1)
                .unwrap()
                .commit_from_file(folder.join("model.onnx"))
                .unwrap()
        };
        let sessions = (0..threads).map(|_| session()).collect();
        let mut ids: Vec<_> = texts.iter().map(|text| ids(&tokenizer, text)).collect();
        ids.sort_by_key(Vec::len);
        let mut batches: Vec<Vec<Vec<i64>>> = Vec::new();
        for text in ids.into_iter().rev() {
            match batches
                .last_mut()
                .filter(|batch| (batch.len() + 1) * batch[0].len() <= BUDGET)
            {
                Some(batch) => batch.push(text),
                None => batches.push(vec![text]),
            }
        }
        Self {
            tokenizer,
            sessions,
            batches,
        }
    }

    fn tokens(&self) -> usize {
        self.batches.iter().flatten().map(Vec::len).sum()
    }

    fn backlog(&mut self) -> Duration {
        let started = Instant::now();
        let (next, batches) = (AtomicUsize::new(0), &self.batches);
        std::thread::scope(|scope| {
            for session in &mut self.sessions {
                scope.spawn(|| {
                    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                        run(session, batch);
                    }
                });
            }
        });
        started.elapsed()
    }

    fn lone(&mut self, text: &str) -> Duration {
        let started = Instant::now();
        let ids = ids(&self.tokenizer, text);
        run(&mut self.sessions[0], &[ids]);
        started.elapsed()
    }
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<i64> {
    let encoding = tokenizer.encode_fast(text, true).unwrap();
    encoding.get_ids().iter().map(|id| i64::from(*id)).collect()
}

/// Runs a batch whose first text is the longest.
fn run(session: &mut Session, batch: &[Vec<i64>]) {
    let shape = [batch.len(), batch[0].len()];
    let mut ids = vec![0; shape[0] * shape[1]];
    let mut mask = ids.clone();
    for (row, text) in batch.iter().enumerate() {
        ids[row * shape[1]..][..text.len()].copy_from_slice(text);
        mask[row * shape[1]..][..text.len()].fill(1);
    }
    let types = vec![0; ids.len()];
    let tensor = |data| TensorRef::from_array_view((shape, data)).unwrap();
    let inputs = ort::inputs![
        "input_ids" => tensor(ids.as_slice()),
        "attention_mask" => tensor(mask.as_slice()),
        "token_type_ids" => tensor(types.as_slice()),
    ];
    session.run(inputs).unwrap();
}

/// Texts of 4 to about 250 words, most of them short, as paragraphs are: half below 30, a tenth above 100.
fn texts() -> Vec<String> {
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
            .map(|_| WORDS[random() % WORDS.len()])
            .collect::<Vec<_>>()
            .join(" ")
    };
    (0..TEXTS).map(text).collect()
}

fn rate(elapsed: Duration) -> f64 {
    TEXTS as f64 / elapsed.as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
