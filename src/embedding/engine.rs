//! One inference engine for all jobs: it loads each model once and owns the inference threads.
//!
//! ```text
//!  job A ─ Submitter ──┐                        ┌── embed-0 ──┐
//!  job B ─ Submitter ──┼──▶ Scheduler ──────────┼── embed-1 ──┼──▶ Completions of each job
//!  search ─ embed() ───┘    (queue of batches)  └── …       ──┘
//! ```
//!
//! Batching is natural: an idle worker takes what is there, so no timer delays a single text. While all workers are
//! busy, texts gather, and the next batch is as full as its budget allows.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ort::environment::Environment;

use super::catalog::fetch::Fetcher;
use super::catalog::model_catalog::ModelCatalog;
use super::channel::{self, Completions, Submitter};
use super::error::EmbeddingError;
use super::flow_counters::FlowCounters;
use super::hub::{DownloadEvent, Downloaded, HubSettings};
use super::local::base::ModelBase;
use super::local::loaded::LoadedModel;
use super::local::runtime;
use super::local::worker::{panic_message, run_worker};
use super::model::{Computed, Model};
use super::name::ModelName;
use super::options::ModelOptions;
use super::remote::{RemoteOptions, RemoteServices, Window};
use super::role::TextRole;
use super::schedule::linger::Linger;
use super::schedule::queue::Priority;
use super::schedule::scheduler::{Embedded, Memory, Scheduler, lock};
use super::yielding::{Gate, Monitor, Processes, Yielding};

/// Padded tokens in a batch. Measured on CPUs: 512 is the best of 128 to 16384.
const DEFAULT_BATCH_TOKENS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// About 40,000 vectors of 384 dimensions.
pub(crate) const DEFAULT_CACHE_BYTES: u64 = 64 << 20;

/// The most threads that a run is divided among. The steps of a text are short, and more threads wait for each other more
/// than they compute.
const MAX_THREADS_OF_RUN: usize = 4;

/// Settings of an [`Engine`].
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Number of inference threads. Default: the number of cores that the process may use.
    pub threads: Option<NonZeroUsize>,
    /// Whether a run of the model is divided among inference threads. A lone text is ready sooner, and many at once are
    /// not.
    pub divides_runs: bool,
    /// The ONNX Runtime library, or the folder that holds it. Default: see [`EngineOptions::data_path`].
    pub runtime_library: Option<PathBuf>,
    /// The daemon's data folder. The ONNX Runtime library is searched in its `lib` first, then in the system's folders.
    pub data_path: PathBuf,
    /// Maximum number of padded tokens in a batch. Default: 512.
    pub batch_tokens: Option<NonZeroUsize>,
    /// Whether inference yields to other users of the processors. Default: down to a tenth of its cores.
    pub yielding: Yielding,
    /// Memory for vectors of texts that may come again, in bytes. Default: 64 MiB; 0 keeps none.
    pub cache_bytes: Option<u64>,
    /// The hub that models are downloaded from at their first use. Default: none, and nothing is downloaded.
    pub hub: Option<HubSettings>,
}

/// Computes embeddings for all jobs of the process. Clones are handles to the same engine; its threads end when the
/// last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
}

struct EngineInner {
    fetcher: Fetcher,
    options: EngineOptions,
    models: Mutex<HashMap<ModelName, Arc<ModelCacheEntry>>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    monitor: Mutex<Option<JoinHandle<()>>>,
    memory: Memory,
    scheduler: Arc<Scheduler<LoadedModel>>,
    remote: RemoteServices,
    gate: Arc<Gate>,
    own_processes: Processes,
}

/// The cache entry of one model.
#[derive(Default)]
struct ModelCacheEntry {
    /// Held while the model is downloaded.
    download: tokio::sync::Mutex<()>,
    /// Locked while the model is loaded, so concurrent callers wait for one load and share its result.
    loaded: Mutex<LoadedBase>,
}

/// It does not keep a model alive: a model is unloaded when its last user drops it.
#[derive(Default)]
struct LoadedBase {
    base: Weak<ModelBase>,
    /// Under each set of options that is in use.
    models: HashMap<ModelOptions, Weak<LoadedModel>>,
}

/// How much inference may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inference {
    /// Its threads. They start when the first model is loaded.
    pub threads: usize,
    /// The share of their time that they may work now, up to 1: below 1 while inference yields.
    pub share: f64,
}

impl Engine {
    /// Creates an engine. Cheap: the library, the models and the threads are started by the first [`Engine::model`].
    #[must_use]
    pub fn new(catalog: ModelCatalog, options: EngineOptions) -> Self {
        let cache_bytes = options.cache_bytes.unwrap_or(DEFAULT_CACHE_BYTES);
        let batch_tokens = options.batch_tokens.unwrap_or(DEFAULT_BATCH_TOKENS).get();
        let memory = Memory::new(cache_bytes);
        let linger = Linger::new(Instant::now());
        Self {
            inner: Arc::new(EngineInner {
                fetcher: Fetcher::new(catalog, options.hub.clone()),
                options,
                models: Mutex::default(),
                workers: Mutex::default(),
                monitor: Mutex::default(),
                scheduler: Arc::new(Scheduler::new(batch_tokens, linger, memory.clone())),
                remote: RemoteServices::new(memory.clone()),
                memory,
                gate: Arc::new(Gate::new()),
                own_processes: Processes::default(),
            }),
        }
    }

    /// The models that this engine can load.
    #[must_use]
    pub fn catalog(&self) -> &ModelCatalog {
        self.inner.fetcher.catalog()
    }

    /// Returns the model of this name and loads it, on a blocking thread, unless it is loaded already. A model that is
    /// not on this machine is downloaded first, if the engine has a hub. Concurrent callers share one download and one
    /// load. A model stays loaded for as long as a [`Model`] or an open queue refers to it.
    ///
    /// Cancellation safe: when all callers have dropped their futures, a download stops and is continued by the next call,
    /// and a load finishes and its result is dropped.
    ///
    /// # Errors
    ///
    /// If the model or the ONNX Runtime library is missing or unusable, or the model cannot be downloaded; the message
    /// says what to do. A later call tries again.
    pub async fn model(&self, name: &ModelName) -> Result<Model, EmbeddingError> {
        self.model_with(name, &ModelOptions::default()).await
    }

    /// As [`Engine::model`], under these options. Models of one name share the loaded graph, whatever their options.
    ///
    /// Cancellation safe, as [`Engine::model`].
    ///
    /// # Errors
    ///
    /// Those of [`Engine::model`], and [`EmbeddingError::Options`] where the options do not suit the model.
    pub async fn model_with(
        &self,
        name: &ModelName,
        options: &ModelOptions,
    ) -> Result<Model, EmbeddingError> {
        let entry = lock(&self.inner.models)
            .entry(name.clone())
            .or_default()
            .clone();
        let is_loaded = entry
            .loaded
            .try_lock()
            .is_ok_and(|loaded| loaded.base.strong_count() > 0);
        if !is_loaded {
            let _one_at_a_time = entry.download.lock().await;
            self.inner.fetcher.fetch_missing(name).await?;
        }
        let (inner, requested, options) = (self.inner.clone(), name.clone(), options.clone());
        let load = move || inner.load_or_share(&entry.loaded, requested, options);
        match tokio::task::spawn_blocking(load).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(EmbeddingError::Panicked {
                model: name.as_str().into(),
                reason: panic_message(&*error.into_panic()),
            }),
            // The async runtime itself is shutting down.
            Err(_) => Err(EmbeddingError::ShutDown),
        }
    }

    /// Returns a model of a server, after a first text has shown that it works. Jobs with the same servers and key share
    /// their limits and take turns. A model is used for as long as a [`Model`] or an open queue refers to it.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::Remote`] with the server's words, and what to do.
    pub async fn remote_model(&self, options: &RemoteOptions) -> Result<Model, EmbeddingError> {
        let window = match options.tokenizer() {
            Some(name) => Some(self.window(name.parse()?).await?),
            None => None,
        };
        let model = self.inner.remote.model(options, window).await?;
        Ok(Model::from_remote(model))
    }

    /// The window of a model of this machine, which is downloaded if it is not here.
    async fn window(&self, name: ModelName) -> Result<Window, EmbeddingError> {
        self.inner.fetcher.fetch_missing(&name).await?;
        let inner = self.inner.clone();
        let load = move || {
            let folder = inner.fetcher.catalog().locate(&name)?;
            Window::load(&folder, &name)
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.unwrap_or(Err(EmbeddingError::ShutDown))
    }

    /// Loads the ONNX Runtime library, as the first model would.
    ///
    /// Cancellation safe: the load finishes in the background.
    ///
    /// # Errors
    ///
    /// If the library is not found, does not load, or is too old.
    pub async fn load_runtime(&self) -> Result<(), EmbeddingError> {
        let inner = self.inner.clone();
        let load = move || inner.runtime().map(drop);
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.unwrap_or(Err(EmbeddingError::ShutDown))
    }

    /// Downloads the newest state of a model's revision, or what is missing of it, without loading it.
    ///
    /// Cancellation safe: a later call continues.
    ///
    /// # Errors
    ///
    /// If the engine has no hub, or the model cannot be downloaded.
    pub async fn download(
        &self,
        name: &ModelName,
        observe: &(dyn Fn(DownloadEvent) + Send + Sync),
    ) -> Result<Downloaded, EmbeddingError> {
        self.inner.fetcher.download(name, observe).await
    }

    /// Embeds texts immediately, before any backfill: one vector for each text, in order.
    ///
    /// Cancellation safe: dropping the future drops the texts that no worker has taken yet.
    ///
    /// # Errors
    ///
    /// The first error that one of the texts yields.
    pub async fn embed(
        &self,
        model: &Model,
        role: TextRole,
        texts: Vec<String>,
    ) -> Result<Vec<Vec<f32>>, EmbeddingError> {
        let embedded = self.embed_each(model, role, texts).await?;
        embedded.into_iter().map(|text| text.vector).collect()
    }

    /// As [`Engine::embed`], with the error of each text that cannot be embedded in its place.
    ///
    /// Cancellation safe, as [`Engine::embed`].
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::ShutDown`].
    pub async fn embed_each(
        &self,
        model: &Model,
        role: TextRole,
        texts: Vec<String>,
    ) -> Result<Vec<Embedded>, EmbeddingError> {
        self.embed_gathered(model, role, texts, Duration::ZERO)
            .await
    }

    /// As [`Engine::embed_each`], where the texts of others are about to follow: while all workers are busy, these wait for
    /// them for up to `gather`, and share a batch.
    ///
    /// Cancellation safe, as [`Engine::embed`].
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::ShutDown`].
    pub async fn embed_gathered(
        &self,
        model: &Model,
        role: TextRole,
        texts: Vec<String>,
        gather: Duration,
    ) -> Result<Vec<Embedded>, EmbeddingError> {
        let count = texts.len();
        let (submitter, mut completions) = self.open_queue(model, role, count, Arc::default());
        for (id, text) in texts.into_iter().enumerate() {
            submitter.submit(Priority::Live, id as u64, text);
        }
        let mut all = Vec::with_capacity(count);
        if !gather.is_zero()
            && let Ok(first) = tokio::time::timeout(gather, completions.next()).await
        {
            all.push(first.ok_or(EmbeddingError::ShutDown)?);
        }
        submitter.flush();
        while all.len() < count {
            all.push(completions.next().await.ok_or(EmbeddingError::ShutDown)?);
        }
        all.sort_unstable_by_key(|embedded| embedded.id);
        Ok(all)
    }

    /// Number of texts that this engine has embedded.
    #[must_use]
    pub fn embedded_texts(&self) -> u64 {
        self.inner.memory.embedded_texts()
    }

    /// Number of vectors that it has computed for them. The others were known, or wanted for several texts at a time.
    #[must_use]
    pub fn computed_texts(&self) -> u64 {
        self.inner.memory.computed_texts()
    }

    /// What computes the vectors.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        "cpu"
    }

    /// How much inference may do now.
    #[must_use]
    pub fn inference(&self) -> Inference {
        let threads = lock(&self.inner.workers).len();
        let share = match threads {
            0 => 1.0,
            threads => (self.inner.gate.allowed() / threads as f64).clamp(0.0, 1.0),
        };
        Inference { threads, share }
    }

    /// Processes on this machine that work for this one: inference does not yield to them.
    #[must_use]
    pub fn own_processes(&self) -> &Processes {
        &self.inner.own_processes
    }

    /// Opens a queue of documents, which takes turns with all other queues. The caller keeps at most `capacity` texts
    /// in flight: submitted, but not yet received back. What they cost is added to `counters`.
    #[must_use]
    pub fn queue(
        &self,
        model: &Model,
        capacity: usize,
        counters: Arc<FlowCounters>,
    ) -> (Submitter, Completions) {
        self.open_queue(model, TextRole::Document, capacity, counters)
    }

    fn open_queue(
        &self,
        model: &Model,
        role: TextRole,
        capacity: usize,
        counters: Arc<FlowCounters>,
    ) -> (Submitter, Completions) {
        match model.computed() {
            Computed::Here(model) => {
                let scheduler = &self.inner.scheduler;
                channel::open(scheduler, model.clone(), role, capacity, counters)
            }
            Computed::Elsewhere(model) => {
                let scheduler = model.service().scheduler();
                channel::open(scheduler, model.clone(), role, capacity, counters)
            }
        }
    }

    /// Ends the inference threads after their current batches and waits for them: some tens of milliseconds, or as long
    /// as the load of a model takes. Queued texts come back as [`EmbeddingError::ShutDown`].
    ///
    /// Blocks. Afterwards no thread is inside the inference library, so the process can exit safely: static destructors
    /// of a C++ library must not run while another thread uses it.
    pub fn shutdown(&self) {
        self.inner.shut_down();
        let workers = std::mem::take(&mut *lock(&self.inner.workers));
        let monitor = lock(&self.inner.monitor).take();
        for worker in workers.into_iter().chain(monitor) {
            // A worker catches the panics of its work, so there is nothing to report.
            let _ = worker.join();
        }
        let entries: Vec<_> = lock(&self.inner.models).values().cloned().collect();
        for entry in entries {
            // An entry is locked while its model is loaded.
            drop(lock(&entry.loaded));
        }
    }
}

impl EngineInner {
    /// Returns the model of this cache entry, loaded now unless it is loaded already. Blocks.
    fn load_or_share(
        &self,
        entry: &Mutex<LoadedBase>,
        name: ModelName,
        options: ModelOptions,
    ) -> Result<Model, EmbeddingError> {
        let mut entry = lock(entry);
        if let Some(loaded) = entry.models.get(&options).and_then(Weak::upgrade) {
            return Ok(Model::from_loaded(loaded));
        }
        if self.scheduler.is_closed() {
            return Err(EmbeddingError::ShutDown);
        }
        let base = match entry.base.upgrade() {
            Some(base) => base,
            None => Arc::new(self.load(name)?),
        };
        let loaded = Arc::new(LoadedModel::new(base.clone(), &options)?);
        self.start_workers()?;
        entry.base = Arc::downgrade(&base);
        entry.models.retain(|_, model| model.strong_count() > 0);
        entry.models.insert(options, Arc::downgrade(&loaded));
        Ok(Model::from_loaded(loaded))
    }

    /// The library, loaded now unless it is loaded already. Blocks.
    fn runtime(&self) -> Result<Environment, EmbeddingError> {
        let explicit = self.options.runtime_library.as_deref();
        runtime::environment(explicit, &self.options.data_path)
    }

    /// Finds and loads what all uses of a model share. Blocks.
    fn load(&self, name: ModelName) -> Result<ModelBase, EmbeddingError> {
        let started = Instant::now();
        let folder = self.fetcher.catalog().locate(&name)?;
        let environment = self.runtime()?;
        let threads = match self.options.divides_runs {
            true => self.threads().min(MAX_THREADS_OF_RUN),
            false => 1,
        };
        let base = ModelBase::load(name, &folder, &environment, threads)?;
        tracing::info!(
            model = %base.name,
            folder = %folder.display(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        Ok(base)
    }

    /// How many inference threads there are once a model is loaded.
    fn threads(&self) -> usize {
        let wanted = self.options.threads;
        wanted.map_or_else(available_threads, NonZeroUsize::get)
    }

    /// Starts the workers that do not run yet. Fails only if not even one can be started.
    fn start_workers(&self) -> Result<(), EmbeddingError> {
        let mut workers = lock(&self.workers);
        let wanted = self.threads();
        while workers.len() < wanted && !self.scheduler.is_closed() {
            let (scheduler, gate) = (self.scheduler.clone(), self.gate.clone());
            let number = workers.len();
            let thread = thread::Builder::new().name(format!("embed-{number}"));
            match thread.spawn(move || run_worker(&scheduler, &gate, number)) {
                Ok(worker) => workers.push(worker),
                Err(error) if workers.is_empty() => {
                    return Err(EmbeddingError::Threads(Arc::new(error)));
                }
                Err(error) => {
                    tracing::warn!(
                        %error,
                        threads = workers.len(),
                        wanted,
                        "started fewer inference threads than configured"
                    );
                    break;
                }
            }
        }
        self.start_monitor(workers.len());
        Ok(())
    }

    /// Starts the thread that lets so many workers yield, once.
    fn start_monitor(&self, workers: usize) {
        let mut monitor = lock(&self.monitor);
        let Yielding::DownTo(floor) = self.options.yielding else {
            return;
        };
        if monitor.is_some() {
            return;
        }
        let (gate, own) = (self.gate.clone(), self.own_processes.clone());
        let watching = Monitor::new(gate, own, workers, floor);
        let thread = thread::Builder::new().name("embed-yield".into());
        match thread.spawn(move || watching.run()) {
            Ok(thread) => *monitor = Some(thread),
            Err(error) => {
                tracing::warn!(%error, "inference does not yield: its monitor thread cannot be started");
            }
        }
    }

    fn shut_down(&self) {
        self.scheduler.shut_down();
        self.gate.close();
        self.remote.shut_down();
    }
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// The number of cores that the process may use. `available_parallelism` respects CPU affinity and, on Linux, the CPU
/// quota of the cgroup (`cpu.max`); ONNX Runtime's own default ignores the quota and would start too many threads in a
/// container.
fn available_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_never_loaded_a_model_has_no_threads_and_shuts_down() {
        let engine = Engine::new(
            ModelCatalog::new("/nowhere".into()),
            EngineOptions::default(),
        );
        let error = engine
            .model(&"acme/model".parse().unwrap())
            .await
            .unwrap_err();
        assert!(matches!(error, EmbeddingError::ModelNotFound { .. }));
        assert!(lock(&engine.inner.workers).is_empty());
        engine.shutdown();
    }
}
