//! One inference engine for all jobs: it loads each model once and owns the inference threads.
//!
//! ```text
//!  job A ─ Submitter ──┐                        ┌── embed-0 ──┐
//!  job B ─ Submitter ──┼──▶ Scheduler ──────────┼── embed-1 ──┼──▶ Completions of each job
//!  search ─ embed() ───┘    (queue of batches)  └── …       ──┘
//! ```
//!
//! Beside models on devices there are `embed-run-0` and so on, which run their batches; the others tokenize for them.
//!
//! Batching is natural: an idle worker takes what is there, so no timer delays a single text. While all workers are
//! busy, texts gather, and the next batch is as full as its budget allows.

mod inner;
mod load;
mod options;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::inner::EngineInner;
use self::options::{DEFAULT_BATCH_TOKENS, DEFAULT_CACHE_BYTES};

pub use self::options::EngineOptions;
use super::catalog::fetch::Fetcher;
use super::catalog::model_catalog::ModelCatalog;
use super::channel::{self, Completions, Submitter};
use super::error::EmbeddingError;
use super::flow_counters::FlowCounters;
use super::hub::{DownloadEvent, Downloaded};
use super::local::provider::group::DeviceGroup;
use super::local::provider::order::ProviderOrder;
use super::local::recovery::Recovery;
use super::local::worker::panic_message;
use super::model::{Computed, Model};
use super::name::ModelName;
use super::options::ModelOptions;
use super::remote::{RemoteOptions, RemoteServices, Window};
use super::role::TextRole;
use super::schedule::linger::Linger;
use super::schedule::queue::Priority;
use super::schedule::scheduler::{Embedded, Memory, Scheduler, lock};
use super::yielding::{Gate, Processes};

/// Computes embeddings for all jobs of the process. Clones are handles to the same engine; its threads end when the
/// last handle is dropped.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
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
        let scheduler = Arc::new(Scheduler::new(batch_tokens, linger, memory.clone()));
        let gate = Arc::new(Gate::new());
        Self {
            inner: Arc::new(EngineInner {
                fetcher: Fetcher::new(catalog, options.hub.clone()),
                providers: ProviderOrder::new(options.providers.clone()),
                options,
                models: Mutex::default(),
                workers: Mutex::default(),
                monitor: Mutex::default(),
                device_workers: Mutex::default(),
                on_devices: Mutex::default(),
                recovery: Arc::new(Recovery::new(scheduler.clone(), gate.clone())),
                scheduler,
                remote: RemoteServices::new(memory.clone()),
                memory,
                gate,
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

    /// The execution provider in use: that of the last model that was loaded, else what would be tried first.
    #[must_use]
    pub fn provider(&self) -> &DeviceGroup {
        self.inner.providers.active()
    }

    /// Looks which of the execution providers that were asked for can be used, as the first model would. Where that is the
    /// CPU alone it does nothing.
    ///
    /// Cancellation safe: the check finishes in the background.
    ///
    /// # Errors
    ///
    /// If none of them can be used, or the ONNX Runtime library cannot; the message says what to do.
    pub async fn check_provider(&self) -> Result<(), EmbeddingError> {
        if self.inner.providers.is_cpu_alone() {
            return Ok(());
        }
        let inner = self.inner.clone();
        let check = move || {
            let environment = inner.runtime()?;
            inner.find_provider(&environment, 0).map(drop)
        };
        let checked = tokio::task::spawn_blocking(check).await;
        checked.unwrap_or(Err(EmbeddingError::ShutDown))
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
        let of_devices = std::mem::take(&mut *lock(&self.inner.device_workers));
        let monitor = lock(&self.inner.monitor).take();
        for worker in workers.into_iter().chain(of_devices).chain(monitor) {
            // A worker catches the panics of its work, so there is nothing to report.
            let _ = worker.join();
        }
        // Those of devices may have begun to renew one.
        self.inner.recovery.join();
        let entries: Vec<_> = lock(&self.inner.models).values().cloned().collect();
        for entry in entries {
            // An entry is locked while its model is loaded.
            drop(lock(&entry.loaded));
        }
    }
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
