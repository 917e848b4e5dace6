//! One inference engine for all jobs: dedicated threads that take turns at one queue.
//!
//! Inference never runs on the async runtime's threads. A worker takes what is there (natural batching: no timer delays
//! a lone text), and while all are busy work gathers, so that the next batch is as full as its budget allows. Tokenizing
//! happens on the same threads, outside the lock: at about 1 % of the cost it needs no stage of its own.

use std::any::Any;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::failpoint;

use super::catalogue::Catalogue;
use super::channel::{self, Completions, JobContext, Submitter, Waiting};
use super::error::EmbeddingError;
use super::model::{LoadedModel, Model, TextRole, Tokens};
use super::name::ModelName;
use super::queue::{JobId, Priority, Queue, Task};
use super::runtime;

/// Padded tokens in a batch. Measured on CPUs: 512 is the best of 128 to 16384.
const DEFAULT_BUDGET: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// How the engine is set up.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Inference threads; by default as many as the process may use cores.
    pub threads: Option<NonZeroUsize>,
    /// The ONNX Runtime library or its folder; by default it is searched for.
    pub runtime_library: Option<PathBuf>,
    /// The daemon's own folder, whose `lib` is searched for the ONNX Runtime library.
    pub data_path: PathBuf,
    /// Padded tokens in a batch, by default 512.
    pub batch_tokens: Option<NonZeroUsize>,
}

/// Computes embeddings for all jobs of the process. Clones are handles to the same engine; when the last one is gone
/// its threads end.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
}

struct EngineInner {
    catalogue: Catalogue,
    options: EngineOptions,
    slots: Mutex<HashMap<ModelName, Arc<Slot>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

/// The place of one model. Loading holds the lock, so concurrent callers wait for one load and share it.
type Slot = Mutex<Weak<LoadedModel>>;

/// What the workers and the jobs' ends share.
pub(crate) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    queue: Queue<Waiting, Ready>,
    idle: usize,
    closed: bool,
}

/// A tokenized text.
struct Ready {
    id: u64,
    tokens: Tokens,
    context: Arc<JobContext>,
}

impl Ready {
    fn refuse(self) {
        self.context.send(self.id, Err(EmbeddingError::ShutDown));
    }
}

impl Engine {
    /// Sets up an engine. Cheap: neither the library nor a model is loaded and no thread runs before the first
    /// [`Engine::model`].
    #[must_use]
    pub fn new(catalogue: Catalogue, options: EngineOptions) -> Self {
        let budget = options.batch_tokens.unwrap_or(DEFAULT_BUDGET).get();
        let state = State {
            queue: Queue::new(budget),
            idle: 0,
            closed: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
        });
        Self {
            inner: Arc::new(EngineInner {
                catalogue,
                options,
                slots: Mutex::default(),
                workers: Mutex::default(),
                shared,
            }),
        }
    }

    /// The models that this engine can load.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    /// The model of this name, loaded on a blocking thread unless it is loaded already. Concurrent callers share one
    /// load. A model stays loaded while somebody holds it.
    ///
    /// Cancellation safe: a load that nobody waits for any more is finished and dropped.
    ///
    /// # Errors
    ///
    /// Where the model or the ONNX Runtime library is missing or unusable; each says what to do. A later call tries
    /// again.
    pub async fn model(&self, name: &ModelName) -> Result<Model, EmbeddingError> {
        let slot = lock(&self.inner.slots)
            .entry(name.clone())
            .or_default()
            .clone();
        let (inner, model) = (self.inner.clone(), name.clone());
        let name = model.clone();
        let load = move || {
            let mut slot = lock(&slot);
            if let Some(loaded) = slot.upgrade() {
                return Ok(Model::from_loaded(loaded));
            }
            if lock(&inner.shared.state).closed {
                return Err(EmbeddingError::ShutDown);
            }
            let loaded = Arc::new(inner.load(name)?);
            *slot = Arc::downgrade(&loaded);
            Ok(Model::from_loaded(loaded))
        };
        match tokio::task::spawn_blocking(load).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => {
                let reason = panic_message(&*error.into_panic());
                Err(EmbeddingError::Panicked { model, reason })
            }
            // The async runtime itself is shutting down.
            Err(_) => Err(EmbeddingError::ShutDown),
        }
    }

    /// Embeds texts at once, before any backfill: one vector a text, in order.
    ///
    /// Cancellation safe: dropping the future drops the texts that no worker has taken yet.
    ///
    /// # Errors
    ///
    /// The error of the first text that has one.
    pub async fn embed(
        &self,
        model: &Model,
        role: TextRole,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, EmbeddingError> {
        let count = texts.len();
        let (submitter, mut completions) =
            channel::open(&self.inner.shared, model.loaded().clone(), role, count);
        for (id, text) in texts.into_iter().enumerate() {
            submitter.submit(Priority::Live, id as u64, text);
        }
        let mut vectors = vec![Vec::new(); count];
        for _ in 0..count {
            let embedded = completions.next().await.ok_or(EmbeddingError::ShutDown)?;
            vectors[embedded.id as usize] = embedded.vector?;
        }
        Ok(vectors)
    }

    /// Opens a job's queue of documents. The caller keeps at most `capacity` texts in flight, that is, submitted but not
    /// received back.
    #[must_use]
    pub fn queue(&self, model: &Model, capacity: usize) -> (Submitter, Completions) {
        channel::open(
            &self.inner.shared,
            model.loaded().clone(),
            TextRole::Document,
            capacity,
        )
    }

    /// Ends the threads after the batches that they are at, and waits for them: some tens of milliseconds, or as long as a
    /// model that is being loaded takes. Texts still waiting come back as [`EmbeddingError::ShutDown`].
    ///
    /// Afterwards nobody is inside the inference library, so that the process may end.
    pub fn shutdown(&self) {
        self.inner.shared.shut_down();
        let workers = std::mem::take(&mut *lock(&self.inner.workers));
        for worker in workers {
            // A worker catches the panics of its work; one that ended otherwise has nothing more to say.
            let _ = worker.join();
        }
        let slots: Vec<Arc<Slot>> = lock(&self.inner.slots).values().cloned().collect();
        for slot in slots {
            // Held while a model is loaded into it.
            drop(lock(&slot));
        }
    }
}

impl EngineInner {
    fn load(&self, name: ModelName) -> Result<LoadedModel, EmbeddingError> {
        let started = Instant::now();
        let folder = self.catalogue.locate(&name)?;
        let environment = runtime::environment(
            self.options.runtime_library.as_deref(),
            &self.options.data_path,
        )?;
        let model = LoadedModel::load(name, &folder, &environment)?;
        self.start_workers()?;
        tracing::info!(
            model = %model.name(),
            folder = %folder.display(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        Ok(model)
    }

    fn start_workers(&self) -> Result<(), EmbeddingError> {
        let mut workers = lock(&self.workers);
        let wanted = self
            .options
            .threads
            .map_or_else(available_threads, NonZeroUsize::get);
        while workers.len() < wanted && !lock(&self.shared.state).closed {
            let shared = self.shared.clone();
            let thread = thread::Builder::new().name(format!("embed-{}", workers.len()));
            match thread.spawn(move || work(&shared)) {
                Ok(worker) => workers.push(worker),
                Err(error) if workers.is_empty() => {
                    return Err(EmbeddingError::Threads(Arc::new(error)));
                }
                Err(error) => {
                    tracing::warn!(%error, threads = workers.len(), wanted, "fewer inference threads than wanted");
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        self.shared.shut_down();
    }
}

/// ONNX Runtime itself overlooks cgroup quotas and affinity; this does not.
fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

impl Shared {
    pub(crate) fn open(&self, model: &Arc<LoadedModel>) -> JobId {
        // The address is the model's identity while somebody holds it, and every queued text does.
        lock(&self.state).queue.open(Arc::as_ptr(model).addr())
    }

    pub(crate) fn push(&self, job: JobId, priority: Priority, text: Waiting) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            text.refuse();
            return;
        }
        state.queue.push(job, priority, text);
        if state.idle > 0 {
            self.wake.notify_one();
        }
    }

    pub(crate) fn close(&self, job: JobId) {
        let dropped = lock(&self.state).queue.close(job);
        // Thousands of texts may be freed here, which nobody need wait for.
        drop(dropped);
    }

    /// Waits for work; `None` when the engine is shut down.
    fn next(&self) -> Option<Task<Waiting, Ready>> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            let idle = state.idle;
            if let Some(task) = state.queue.next(idle) {
                // Whoever takes work wakes the next one if there is more: one wake-up a submit is enough.
                if idle > 0 && state.queue.has_work() {
                    self.wake.notify_one();
                }
                return Some(task);
            }
            state.idle += 1;
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn put_ready(&self, priority: Priority, texts: Vec<(JobId, Ready)>) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            texts.into_iter().for_each(|(_, text)| text.refuse());
            return;
        }
        for (job, text) in texts {
            state.queue.ready(job, priority, text.tokens.len(), text);
        }
    }

    fn shut_down(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (waiting, ready) = state.queue.drain();
        drop(state);
        self.wake.notify_all();
        waiting.into_iter().for_each(Waiting::refuse);
        ready.into_iter().for_each(Ready::refuse);
    }
}

/// The life of a worker.
fn work(shared: &Shared) {
    while let Some(task) = shared.next() {
        match task {
            Task::Tokenize { priority, texts } => {
                let ready = texts
                    .into_iter()
                    .filter_map(|(job, text)| Some((job, tokenize(text)?)));
                shared.put_ready(priority, ready.collect());
            }
            Task::Run { texts } => {
                failpoint::reach("embedder");
                run(texts);
            }
        }
    }
}

/// Tokenizes one text; where that fails the job hears of it.
fn tokenize(text: Waiting) -> Option<Ready> {
    let Waiting { id, text, context } = text;
    let model = &context.model;
    match guarded(model.name(), || model.tokenize(context.role, &text)) {
        Ok(tokens) => Some(Ready {
            id,
            tokens,
            context,
        }),
        Err(error) => {
            context.send(id, Err(error));
            None
        }
    }
}

/// Embeds a batch; where that fails as a whole, its texts one by one, so that only a bad one gets the error.
fn run(texts: Vec<Ready>) {
    let Some(first) = texts.first() else { return };
    let model = first.context.model.clone();
    let tokens: Vec<&Tokens> = texts.iter().map(|text| &text.tokens).collect();
    match guarded(model.name(), || model.embed(&tokens)) {
        Ok(vectors) => texts
            .iter()
            .zip(vectors)
            .for_each(|(text, vector)| text.context.send(text.id, vector)),
        Err(error) if texts.len() == 1 => first.context.send(first.id, Err(error)),
        Err(error) => {
            tracing::warn!(model = %model.name(), %error, texts = texts.len(), "a batch failed; trying its texts alone");
            for text in &texts {
                let alone = guarded(model.name(), || model.embed(&[&text.tokens])?.remove(0));
                text.context.send(text.id, alone);
            }
        }
    }
}

/// Turns a panic into the error of the text at hand: the worker and the other jobs go on.
fn guarded<T>(
    model: &ModelName,
    work: impl FnOnce() -> Result<T, EmbeddingError>,
) -> Result<T, EmbeddingError> {
    // Nothing that the closures touch is left half changed: models are immutable and results local.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(EmbeddingError::Panicked {
            model: model.clone(),
            reason: panic_message(&*panic),
        })
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

/// No code that can panic runs under these locks, so a poisoned one still guards sound data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_error_of_its_text() {
        let name: ModelName = ModelName::DEFAULT.parse().unwrap();
        let result: Result<(), _> = guarded(&name, || panic!("index {} out of range", 7));
        let error = result.unwrap_err();
        assert!(
            matches!(&error, EmbeddingError::Panicked { reason, .. } if reason == "index 7 out of range")
        );
        assert!(!error.is_transient());
    }

    #[tokio::test]
    async fn an_engine_without_a_model_starts_nothing_and_shuts_down() {
        let engine = Engine::new(Catalogue::new("/nowhere".into()), EngineOptions::default());
        let error = engine
            .model(&"acme/model".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(error, EmbeddingError::ModelNotFound { .. }));
        assert!(lock(&engine.inner.workers).is_empty());
        engine.shutdown();
    }
}
