//! The engine against a bare ONNX Runtime loop, in one run and in turns, so that a noisy machine is noisy for both.
//!
//! The bare loop is the ceiling: texts tokenized beforehand, sorted as a whole, cut by the same budget, one session a
//! thread, no pooling. The engine starts from raw text and gives normalised vectors. Run `make setup` first, then
//! `cargo bench --bench embedder`, or with `-- engine-only` to see what memory the engine takes by itself.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern::embedding::{
    Catalogue, Engine, EngineOptions, Model, ModelName, Priority, TextRole, onnx_environment,
};
use ort::session::Session;
use ort::value::TensorRef;
use tokenizers::{Tokenizer, TruncationParams};

const TEXTS: usize = 800;
const ROUNDS: usize = 5;
const LONE_TEXTS: usize = 200;
const BUDGET: usize = 512;

const WORDS: &str = "the of and a in to is was it for with as on river replication slot mountain government \
    photosynthesis quarterly harbour memory Ottoman violin bridge database electron \
    settlement painted 1987 travelled however between species northern championship novel \
    engine railway parliament copper vineyard algorithm winter studied";

fn main() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime");
    let folder = runtime.join("models").join(ModelName::DEFAULT);
    assert!(folder.is_dir(), "run `make setup` first");
    let texts = texts();

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
    let name = ModelName::DEFAULT.parse().unwrap();
    let model = tokio.block_on(engine.model(&name)).unwrap();

    if std::env::args().any(|argument| argument == "engine-only") {
        let elapsed = tokio.block_on(backlog(&engine, &model, &texts));
        println!("engine only: {:.1} texts/s", rate(elapsed));
    } else {
        let mut bare = Bare::new(&runtime, &folder, &texts);
        let mut engine_backlog = || tokio.block_on(backlog(&engine, &model, &texts));
        compare_backlogs(&mut bare, &mut engine_backlog);
        let mut engine_lone = |text: String| {
            let lone = engine.embed(&model, TextRole::Document, vec![text]);
            tokio.block_on(lone).unwrap();
        };
        compare_lone_texts(&mut bare, &mut engine_lone);
    }
    print_memory();
    engine.shutdown();
}

fn compare_backlogs(bare: &mut Bare, engine: &mut dyn FnMut() -> Duration) {
    let (mut engine_rates, mut bare_rates) = (Vec::new(), Vec::new());
    let (mut ratios, mut cpu_ratios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cpu_seconds();
        let bare = rate(bare.backlog());
        let between = cpu_seconds();
        let engine = rate(engine());
        cpu_ratios.push((between - before) / (cpu_seconds() - between));
        ratios.push(engine / bare);
        engine_rates.push(engine);
        bare_rates.push(bare);
    }
    let (tokens, threads) = (bare.tokens() / TEXTS, bare.sessions.len());
    println!("{TEXTS} texts, mean {tokens} tokens, {threads} threads, medians of {ROUNDS}");
    println!(
        "engine:        {:7.1} texts/s",
        quantile(&mut engine_rates, 0.5)
    );
    println!(
        "bare:          {:7.1} texts/s",
        quantile(&mut bare_rates, 0.5)
    );
    println!(
        "ratio by time: {:7.3}  of {ratios:.3?}",
        quantile(&mut ratios.clone(), 0.5)
    );
    println!(
        "ratio by CPU:  {:7.3}  of {cpu_ratios:.3?}",
        quantile(&mut cpu_ratios.clone(), 0.5)
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
            quantile(&mut engine_times, share),
            quantile(&mut bare_times, share),
        );
        let added = engine - bare;
        println!(
            "lone text, {name}: engine {engine:.3} ms, bare {bare:.3} ms, added {added:.3} ms"
        );
    }
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
    fn new(runtime: &Path, folder: &Path, texts: &[String]) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
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
    (0..TEXTS).map(text).collect()
}

fn rate(elapsed: Duration) -> f64 {
    TEXTS as f64 / elapsed.as_secs_f64()
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * share) as usize]
}

/// CPU time of the process: on a busy machine a steadier measure than the clock. 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

fn print_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("VmHWM") || line.starts_with("VmRSS");
    status
        .lines()
        .filter(wanted)
        .for_each(|line| println!("{line}"));
}
