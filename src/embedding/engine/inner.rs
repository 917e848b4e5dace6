//! What all handles of an engine share: its models, each loaded once, and its threads.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

use super::options::EngineOptions;
use crate::embedding::catalog::fetch::Fetcher;
use crate::embedding::error::EmbeddingError;
use crate::embedding::local::base::ModelBase;
use crate::embedding::local::loaded::LoadedModel;
use crate::embedding::local::provider::order::ProviderOrder;
use crate::embedding::local::recovery::Recovery;
use crate::embedding::local::worker::{run_device_worker, run_worker};
use crate::embedding::model::Model;
use crate::embedding::name::ModelName;
use crate::embedding::options::ModelOptions;
use crate::embedding::remote::RemoteServices;
use crate::embedding::schedule::scheduler::{Memory, Scheduler, lock};
use crate::embedding::yielding::{Gate, Monitor, Processes, Yielding};

pub(super) struct EngineInner {
    pub fetcher: Fetcher,
    pub options: EngineOptions,
    pub models: Mutex<HashMap<ModelName, Arc<ModelCacheEntry>>>,
    pub workers: Mutex<Vec<JoinHandle<()>>>,
    /// Those that run batches on devices.
    pub device_workers: Mutex<Vec<JoinHandle<()>>>,
    /// The models that were loaded on devices.
    pub on_devices: Mutex<Vec<Weak<ModelBase>>>,
    pub recovery: Arc<Recovery>,
    pub monitor: Mutex<Option<JoinHandle<()>>>,
    pub memory: Memory,
    pub scheduler: Arc<Scheduler<LoadedModel>>,
    pub remote: RemoteServices,
    pub providers: ProviderOrder,
    pub gate: Arc<Gate>,
    pub own_processes: Processes,
}

/// The cache entry of one model.
#[derive(Default)]
pub(super) struct ModelCacheEntry {
    /// Held while the model is downloaded.
    pub download: tokio::sync::Mutex<()>,
    /// Locked while the model is loaded, so concurrent callers wait for one load and share its result.
    pub loaded: Mutex<LoadedBase>,
}

/// It does not keep a model alive: a model is unloaded when its last user drops it.
#[derive(Default)]
pub(super) struct LoadedBase {
    pub base: Weak<ModelBase>,
    /// Under each set of options that is in use.
    pub models: HashMap<ModelOptions, Weak<LoadedModel>>,
}

impl EngineInner {
    /// Returns the model of this cache entry, loaded now unless it is loaded already. Blocks.
    pub(super) fn load_or_share(
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
            None => Arc::new(self.load(&name)?),
        };
        let loaded = Arc::new(LoadedModel::new(base.clone(), &options)?);
        self.start_workers()?;
        self.start_device_workers(&base)?;
        entry.base = Arc::downgrade(&base);
        entry.models.retain(|_, model| model.strong_count() > 0);
        entry.models.insert(options, Arc::downgrade(&loaded));
        Ok(Model::from_loaded(loaded))
    }

    /// How many inference threads there are once a model is loaded.
    pub(super) fn threads(&self) -> usize {
        let wanted = self.options.threads;
        wanted.map_or_else(available_threads, NonZeroUsize::get)
    }

    /// Starts the workers that do not run yet. Fails only if not even one can be started.
    pub(super) fn start_workers(&self) -> Result<(), EmbeddingError> {
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

    /// Starts as many workers as the devices of this model and of the others that are loaded take batches. They wait for the
    /// devices, so that they are more than the inference threads does no harm; they end with the engine.
    fn start_device_workers(&self, base: &Arc<ModelBase>) -> Result<(), EmbeddingError> {
        if base.session().provider().uses_processor() {
            return Ok(());
        }
        let wanted = self.note_on_devices(base);
        let mut workers = lock(&self.device_workers);
        while workers.len() < wanted && !self.scheduler.is_closed() {
            let (scheduler, recovery) = (self.scheduler.clone(), self.recovery.clone());
            let thread = thread::Builder::new().name(format!("embed-run-{}", workers.len()));
            match thread.spawn(move || run_device_worker(&scheduler, &recovery)) {
                Ok(worker) => workers.push(worker),
                Err(error) if workers.is_empty() => {
                    return Err(EmbeddingError::Threads(Arc::new(error)));
                }
                Err(error) => {
                    let threads = workers.len();
                    tracing::warn!(%error, threads, wanted, "started fewer threads for devices than they take batches");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Adds a model that was loaded on devices. Returns how many batches such models take together.
    fn note_on_devices(&self, base: &Arc<ModelBase>) -> usize {
        let mut all = lock(&self.on_devices);
        all.retain(|other| other.strong_count() > 0);
        if !all.iter().any(|other| other.as_ptr() == Arc::as_ptr(base)) {
            all.push(Arc::downgrade(base));
        }
        let loaded = all.iter().filter_map(Weak::upgrade);
        loaded.map(|base| base.devices.most_runs()).sum()
    }

    /// Starts the thread that lets so many workers yield, once.
    pub(super) fn start_monitor(&self, workers: usize) {
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

    pub(super) fn shut_down(&self) {
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
