//! ONNX Runtime with nothing around it: the ceiling of what can be embedded.
//!
//! Texts are tokenized and sorted beforehand, all of them at once, and cut into batches by a budget of padded tokens;
//! one session a thread, or two on a device, no pooling, no spinning.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lantern::embedding::{DeviceGroup, ExecutionProvider, onnx_environment, register_provider};
use ort::session::Session;
use ort::value::TensorRef;
use testkit::engine::MODEL;
use testkit::paths::runtime;
use tokenizers::{Tokenizer, TruncationParams};

/// The model's window in tokens.
const WINDOW: usize = 256;

pub struct Bare {
    tokenizer: Tokenizer,
    sessions: Vec<Session>,
}

/// Texts as token ids, cut into batches. The first of a batch is the longest.
pub struct Batches {
    batches: Vec<Vec<Vec<i64>>>,
    pub texts: usize,
    pub tokens: usize,
}

impl Bare {
    /// The default model, one session for each thread that the process may use.
    pub fn load() -> Bare {
        Bare::load_on(&DeviceGroup::cpu())
    }

    /// The default model on these devices: of another one than the CPU two sessions each, as the engine has them.
    pub fn load_on(group: &DeviceGroup) -> Bare {
        let folder = runtime().join("models").join(MODEL);
        assert!(folder.is_dir(), "run `make setup` first");
        let threads = match group.is_cpu() {
            true => std::thread::available_parallelism().map_or(1, usize::from),
            false => 2,
        };
        let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length: WINDOW,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(truncation)).unwrap();
        let environment = onnx_environment(None, &runtime()).unwrap();
        let session = |provider: &ExecutionProvider| {
            let builder = Session::builder(&environment).unwrap();
            let builder = register_provider(provider, 1, builder)
                .unwrap()
                .with_intra_threads(1)
                .unwrap();
            builder
                .with_config_entry("session.intra_op.allow_spinning", "0")
                .unwrap()
                .commit_from_file(folder.join("model.onnx"))
                .unwrap()
        };
        Bare {
            tokenizer,
            sessions: (0..threads)
                .flat_map(|_| group.devices().iter().map(&session))
                .collect(),
        }
    }

    pub fn threads(&self) -> usize {
        self.sessions.len()
    }

    /// Batches of at most `budget` padded tokens.
    pub fn prepare(&self, texts: &[String], budget: usize) -> Batches {
        let mut ids: Vec<_> = texts.iter().map(|text| self.ids(text)).collect();
        ids.sort_by_key(Vec::len);
        let tokens = ids.iter().map(Vec::len).sum();
        let mut batches: Vec<Vec<Vec<i64>>> = Vec::new();
        for text in ids.into_iter().rev() {
            match batches
                .last_mut()
                .filter(|batch| (batch.len() + 1) * batch[0].len() <= budget)
            {
                Some(batch) => batch.push(text),
                None => batches.push(vec![text]),
            }
        }
        Batches {
            batches,
            texts: texts.len(),
            tokens,
        }
    }

    /// Texts a second.
    pub fn rate(&mut self, batches: &Batches) -> f64 {
        let started = Instant::now();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for session in &mut self.sessions {
                scope.spawn(|| {
                    let take = || batches.batches.get(next.fetch_add(1, Ordering::Relaxed));
                    while let Some(batch) = take() {
                        run(session, batch);
                    }
                });
            }
        });
        batches.texts as f64 / started.elapsed().as_secs_f64()
    }

    /// One text, tokenized and run.
    pub fn lone(&mut self, text: &str) -> Duration {
        let started = Instant::now();
        let ids = self.ids(text);
        run(&mut self.sessions[0], &[ids]);
        started.elapsed()
    }

    fn ids(&self, text: &str) -> Vec<i64> {
        let encoding = self.tokenizer.encode_fast(text, true).unwrap();
        encoding.get_ids().iter().map(|id| i64::from(*id)).collect()
    }
}

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
