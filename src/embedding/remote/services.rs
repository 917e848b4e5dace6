//! The services and models of an engine that are in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::model::{RemoteModel, RemoteService};
use super::options::{RemoteOptions, ServiceKey};
use super::sender;
use super::window::Window;
use crate::embedding::error::EmbeddingError;
use crate::embedding::schedule::scheduler::{Memory, lock};

/// Threads for requests. Encryption and the reading of answers take time, which the daemon's own runtime must not lose.
const REQUEST_THREADS: usize = 2;

/// The services of an engine.
pub(crate) struct RemoteServices {
    memory: Memory,
    state: Mutex<State>,
    /// Held while a model is tried, so that the jobs that share it ask for one first vector.
    trying: AsyncMutex<()>,
    end: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Started by the first service.
    requests: Option<Runtime>,
    services: HashMap<ServiceKey, Weak<RemoteService>>,
    models: HashMap<RemoteOptions, Weak<RemoteModel>>,
    threads: Vec<JoinHandle<()>>,
}

impl RemoteServices {
    /// None yet. What they compute is kept in `memory`.
    pub(crate) fn new(memory: Memory) -> Self {
        Self {
            memory,
            state: Mutex::default(),
            trying: AsyncMutex::default(),
            end: CancellationToken::new(),
        }
    }

    /// The model under these options, tried with a first text unless it is in use already. `window` is that of the tokenizer
    /// that they name.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// Those of the first text.
    pub(crate) async fn model(
        &self,
        options: &RemoteOptions,
        window: Option<Window>,
    ) -> Result<Arc<RemoteModel>, EmbeddingError> {
        let _one_at_a_time = self.trying.lock().await;
        let known = lock(&self.state)
            .models
            .get(options)
            .and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        if self.end.is_cancelled() {
            return Err(EmbeddingError::ShutDown);
        }
        let service = self.service(options).await?;
        let dimensions = service.probe(options).await?;
        let model = Arc::new(RemoteModel::new(
            // A server that has another model later must not mix its vectors with these.
            options.clone().expecting(dimensions),
            dimensions,
            window,
            service,
        ));
        lock(&self.state).add(options.clone(), &model);
        Ok(model)
    }

    /// The service of these options, started now unless it runs.
    async fn service(&self, options: &RemoteOptions) -> Result<Arc<RemoteService>, EmbeddingError> {
        let key = options.service_key();
        let running = lock(&self.state).services.get(&key).and_then(Weak::upgrade);
        if let Some(running) = running {
            return Ok(running);
        }
        let of_fleet = options.clone();
        let fleet = tokio::task::spawn_blocking(move || Fleet::new(&of_fleet)).await;
        let fleet = fleet.map_err(|_| EmbeddingError::ShutDown)??;
        let mut state = lock(&self.state);
        let requests = state.requests()?;
        let (memory, end) = (self.memory.clone(), self.end.child_token());
        let (service, thread) = sender::start(fleet, memory, requests, end)?;
        let service = Arc::new(service);
        state
            .services
            .retain(|_, service| service.strong_count() > 0);
        state.services.insert(key, Arc::downgrade(&service));
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        Ok(service)
    }

    /// Sends nothing more, and waits for the threads, which takes a moment. Texts that have no vector yet come back as
    /// [`EmbeddingError::ShutDown`].
    pub(crate) fn shut_down(&self) {
        self.end.cancel();
        let (services, threads) = {
            let mut state = lock(&self.state);
            let services: Vec<_> = state.services.values().filter_map(Weak::upgrade).collect();
            (services, std::mem::take(&mut state.threads))
        };
        services
            .iter()
            .for_each(|service| service.scheduler().shut_down());
        for thread in threads {
            // It has told of a panic itself.
            let _ = thread.join();
        }
        if let Some(requests) = lock(&self.state).requests.take() {
            requests.shutdown_background();
        }
    }
}

impl Drop for RemoteServices {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl State {
    /// The runtime of all requests, started now unless it runs.
    fn requests(&mut self) -> Result<Handle, EmbeddingError> {
        if let Some(running) = &self.requests {
            return Ok(running.handle().clone());
        }
        let started = runtime::Builder::new_multi_thread()
            .worker_threads(REQUEST_THREADS)
            .thread_name("embed-requests")
            .enable_all()
            .build();
        let started = started.map_err(|error| EmbeddingError::Threads(Arc::new(error)))?;
        Ok(self.requests.insert(started).handle().clone())
    }

    /// Adds a model. Of the models of a service the one that allows the fewest requests at a time decides.
    fn add(&mut self, options: RemoteOptions, model: &Arc<RemoteModel>) {
        self.models.retain(|_, model| model.strong_count() > 0);
        let key = options.service_key();
        self.models.insert(options, Arc::downgrade(model));
        let of_service = self
            .models
            .keys()
            .filter(|model| model.service_key() == key);
        let fewest = of_service.map(RemoteOptions::max_in_flight).min();
        model.service().set_max_in_flight(fewest.unwrap_or(1));
    }
}
