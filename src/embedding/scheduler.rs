//! What the workers and the callers' ends share: the queue behind its lock, and the wake-ups of idle workers.
//!
//! ```text
//!  Submitter ──push──▶ ┌───────────┐ ──next_work──▶ worker ──┐
//!                      │ Scheduler │                         │ FlowContext::send
//!  Submitter ──push──▶ └───────────┘ ◀─push_tokenized─ worker│
//!                                                            ▼
//!                                                       Completions
//! ```
//!
//! This file knows neither threads nor the async runtime; [`super::worker`] and [`super::channel`] do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::error::EmbeddingError;
use super::model::{LoadedModel, TextRole, Tokens};
use super::queue::{FlowId, Priority, Queue, WorkItem};

/// The vector of a text, or why it has none. Each submitted text yields exactly one, in any order.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The id that the text was submitted with.
    pub id: u64,
    /// As many values as the model has dimensions, all finite and not all zero.
    pub vector: Result<Vec<f32>, EmbeddingError>,
    /// The text was longer than the model's window, and what is beyond it did not count.
    pub is_truncated: bool,
}

/// What a worker needs to know about the flow that a text belongs to.
pub(crate) struct FlowContext {
    pub model: Arc<LoadedModel>,
    pub role: TextRole,
    /// Unbounded by type, because a worker must not wait for a slow receiver. By contract it never holds more than
    /// the capacity of the flow.
    sender: mpsc::UnboundedSender<Embedded>,
    /// The engine's count of texts that were embedded.
    embedded: Arc<AtomicU64>,
}

/// A text that no worker has taken yet.
pub(crate) struct PendingText {
    pub id: u64,
    pub text: Arc<str>,
    pub context: Arc<FlowContext>,
}

/// A tokenized text that no worker has run yet.
pub(crate) struct TokenizedText {
    pub id: u64,
    pub tokens: Tokens,
    pub context: Arc<FlowContext>,
}

/// A unit of work for a worker.
pub(crate) type EmbeddingWork = WorkItem<PendingText, TokenizedText>;

/// The queue of all flows, shared by the workers and the submitters.
pub(crate) struct Scheduler {
    state: Mutex<SchedulerState>,
    work_available: Condvar,
    /// Texts that were embedded.
    embedded: Arc<AtomicU64>,
}

struct SchedulerState {
    queue: Queue<PendingText, TokenizedText>,
    /// Workers that wait on the condition variable.
    idle_workers: usize,
    closed: bool,
}

impl FlowContext {
    pub(crate) fn new(
        model: Arc<LoadedModel>,
        role: TextRole,
        sender: mpsc::UnboundedSender<Embedded>,
        scheduler: &Scheduler,
    ) -> Self {
        Self {
            model,
            role,
            sender,
            embedded: scheduler.embedded.clone(),
        }
    }

    /// Sends a result to the receiver of the flow, if it still exists.
    fn send(&self, embedded: Embedded) {
        if embedded.vector.is_ok() {
            self.embedded.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.sender.send(embedded);
    }
}

impl PendingText {
    /// Sends back why the text has no vector.
    pub(crate) fn fail(self, error: EmbeddingError) {
        self.context.send(Embedded {
            id: self.id,
            vector: Err(error),
            is_truncated: false,
        });
    }
}

impl TokenizedText {
    /// Sends back the vector of the text, or why it has none.
    pub(crate) fn finish(&self, vector: Result<Vec<f32>, EmbeddingError>) {
        self.context.send(Embedded {
            id: self.id,
            vector,
            is_truncated: self.tokens.is_truncated(),
        });
    }
}

impl Scheduler {
    /// An empty queue whose batches hold at most `batch_tokens` padded tokens.
    pub(crate) fn new(batch_tokens: usize) -> Self {
        Self {
            state: Mutex::new(SchedulerState {
                queue: Queue::new(batch_tokens),
                idle_workers: 0,
                closed: false,
            }),
            work_available: Condvar::new(),
            embedded: Arc::default(),
        }
    }

    /// Number of texts that were embedded.
    pub(crate) fn embedded_texts(&self) -> u64 {
        self.embedded.load(Ordering::Relaxed)
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Opens a flow of texts for this model.
    pub(crate) fn open_flow(&self, model: &Arc<LoadedModel>) -> FlowId {
        // The address identifies a model for as long as it is loaded, and every queued text keeps it loaded.
        lock(&self.state).queue.open_flow(Arc::as_ptr(model).addr())
    }

    /// Queues a text, or rejects it when the engine is shut down.
    pub(crate) fn push(&self, flow: FlowId, priority: Priority, text: PendingText) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            text.fail(EmbeddingError::ShutDown);
            return;
        }
        state.queue.push(flow, priority, text);
        if state.idle_workers > 0 {
            self.work_available.notify_one();
        }
    }

    /// Closes a flow and drops its queued texts.
    pub(crate) fn close_flow(&self, flow: FlowId) {
        // Bound to a name, so that the lock is released before thousands of texts are freed.
        let dropped = lock(&self.state).queue.close_flow(flow);
        drop(dropped);
    }

    /// Waits for work; `None` when the engine is shut down.
    pub(crate) fn next_work(&self) -> Option<EmbeddingWork> {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            let idle = state.idle_workers;
            if let Some(work) = state.queue.next_work(idle) {
                // A worker that takes work wakes the next one if there is more. So one wake-up per submitted text is
                // enough, and a burst does not wake all workers for one text.
                if idle > 0 && state.queue.has_work() {
                    self.work_available.notify_one();
                }
                return Some(work);
            }
            state.idle_workers += 1;
            state = self
                .work_available
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle_workers -= 1;
        }
    }

    /// Returns tokenized texts to the queue, or rejects them when the engine is shut down.
    pub(crate) fn push_tokenized(&self, priority: Priority, texts: Vec<(FlowId, TokenizedText)>) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            for (_, text) in texts {
                text.finish(Err(EmbeddingError::ShutDown));
            }
            return;
        }
        for (flow, text) in texts {
            let length = text.tokens.len();
            state.queue.push_tokenized(flow, priority, length, text);
        }
    }

    /// Rejects all queued texts and ends the workers after the work that they are at.
    pub(crate) fn shut_down(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let (pending, tokenized) = state.queue.drain();
        drop(state);
        self.work_available.notify_all();
        for text in pending {
            text.fail(EmbeddingError::ShutDown);
        }
        for text in tokenized {
            text.finish(Err(EmbeddingError::ShutDown));
        }
    }
}

/// Locks a mutex of the engine. No code that can panic runs under these locks, so the data of a poisoned one is sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
