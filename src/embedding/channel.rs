//! The two ends that a job holds of the engine: texts go in by the [`Submitter`], vectors come out by [`Completions`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::engine::Shared;
use super::error::EmbeddingError;
use super::model::{LoadedModel, TextRole};
use super::queue::{JobId, Priority};

/// A text's vector, or why it has none. Exactly one comes back for each text submitted, in any order.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The id that the text was submitted with.
    pub id: u64,
    /// As many values as the model has dimensions, all finite.
    pub vector: Result<Vec<f32>, EmbeddingError>,
}

/// Hands texts of one job to the engine. Dropping it drops the texts that no worker has taken yet; the
/// [`Completions`] end after those that one has.
pub struct Submitter {
    shared: Arc<Shared>,
    job: JobId,
    context: Arc<JobContext>,
}

/// Receives the vectors of one job.
pub struct Completions {
    receiver: mpsc::UnboundedReceiver<Embedded>,
    in_flight: Arc<InFlight>,
}

/// What a worker needs to know about the job of a text.
pub(crate) struct JobContext {
    pub model: Arc<LoadedModel>,
    pub role: TextRole,
    /// Unbounded by type; by contract it never holds more than the job's capacity.
    sender: mpsc::UnboundedSender<Embedded>,
    in_flight: Arc<InFlight>,
}

struct InFlight {
    count: AtomicUsize,
    capacity: usize,
}

/// Opens a job's queue. The caller keeps at most `capacity` texts between `submit` and the receipt of their vectors.
pub(crate) fn open(
    shared: &Arc<Shared>,
    model: Arc<LoadedModel>,
    role: TextRole,
    capacity: usize,
) -> (Submitter, Completions) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let in_flight = Arc::new(InFlight {
        count: AtomicUsize::new(0),
        capacity,
    });
    let job = shared.open(&model);
    let context = Arc::new(JobContext {
        model,
        role,
        sender,
        in_flight: in_flight.clone(),
    });
    (
        Submitter {
            shared: shared.clone(),
            job,
            context,
        },
        Completions {
            receiver,
            in_flight,
        },
    )
}

impl Submitter {
    /// Queues a text; never blocks. `id` comes back with its vector.
    ///
    /// After [`super::Engine::shutdown`] the vector is [`EmbeddingError::ShutDown`].
    pub fn submit(&self, priority: Priority, id: u64, text: impl Into<Arc<str>>) {
        let before = self.context.in_flight.count.fetch_add(1, Ordering::Relaxed);
        debug_assert!(
            before < self.context.in_flight.capacity,
            "more texts in flight than the queue was opened for"
        );
        self.shared.push(
            self.job,
            priority,
            Waiting {
                id,
                text: text.into(),
                context: self.context.clone(),
            },
        );
    }
}

impl Drop for Submitter {
    fn drop(&mut self) {
        self.shared.close(self.job);
    }
}

impl Completions {
    /// The next vector; `None` when the [`Submitter`] is gone and everything taken from it has come back.
    ///
    /// Cancellation safe: a vector is lost neither by dropping this future nor by racing it in a `select!`.
    pub async fn next(&mut self) -> Option<Embedded> {
        let embedded = self.receiver.recv().await;
        self.in_flight
            .count
            .fetch_sub(usize::from(embedded.is_some()), Ordering::Relaxed);
        embedded
    }

    /// The next vector if one is there.
    pub fn try_next(&mut self) -> Option<Embedded> {
        let embedded = self.receiver.try_recv().ok()?;
        self.in_flight.count.fetch_sub(1, Ordering::Relaxed);
        Some(embedded)
    }

    /// Waits for at least one vector and appends all that are there, at most `limit`. Returns their number; 0 where
    /// [`Completions::next`] would return `None`, or where `limit` is 0.
    ///
    /// Cancellation safe: when the future is dropped, nothing was taken.
    pub async fn next_many(&mut self, buffer: &mut Vec<Embedded>, limit: usize) -> usize {
        let received = self.receiver.recv_many(buffer, limit).await;
        self.in_flight.count.fetch_sub(received, Ordering::Relaxed);
        received
    }
}

/// A text that no worker has taken yet.
pub(crate) struct Waiting {
    pub id: u64,
    pub text: Arc<str>,
    pub context: Arc<JobContext>,
}

impl Waiting {
    pub(crate) fn refuse(self) {
        self.context.send(self.id, Err(EmbeddingError::ShutDown));
    }
}

impl JobContext {
    /// Sends a result to the job, which may be gone.
    pub(crate) fn send(&self, id: u64, vector: Result<Vec<f32>, EmbeddingError>) {
        let _ = self.sender.send(Embedded { id, vector });
    }
}
