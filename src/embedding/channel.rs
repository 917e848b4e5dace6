//! The two ends of a flow of texts: texts go in through the [`Submitter`], vectors come out of the [`Completions`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::flow_counters::FlowCounters;
use super::role::TextRole;
use super::schedule::queue::{FlowId, Priority, Request};
use super::schedule::scheduler::{Embedded, FlowContext, Scheduled, Scheduler};

/// Submits texts of one flow to the engine.
///
/// Dropping it drops the texts that no worker has taken yet. The [`Completions`] end after the texts that a worker has
/// taken.
pub struct Submitter {
    flow: Box<dyn Flow>,
    in_flight: Arc<InFlight>,
}

/// A flow of any kind of model.
trait Flow: Send + Sync {
    /// See [`Scheduler::push`].
    fn push(&self, id: u64, priority: Priority, text: Arc<str>, old: Option<u64>) -> bool;
    fn flush(&self);
    fn withdraw(&self, id: u64) -> bool;
}

/// A flow of one kind of model.
struct FlowOf<M: Scheduled> {
    scheduler: Arc<Scheduler<M>>,
    id: FlowId,
    context: Arc<FlowContext<M>>,
}

/// Receives the vectors of one flow.
pub struct Completions {
    receiver: mpsc::UnboundedReceiver<Embedded>,
    in_flight: Arc<InFlight>,
}

/// Counts the texts between [`Submitter::submit`] and the receipt of their vectors, to check the caller's promise.
struct InFlight {
    count: AtomicUsize,
    capacity: usize,
}

/// Opens a flow. The caller keeps at most `capacity` texts between `submit` and the receipt of their vectors.
pub(crate) fn open<M>(
    scheduler: &Arc<Scheduler<M>>,
    model: Arc<M>,
    role: TextRole,
    capacity: usize,
    counters: Arc<FlowCounters>,
) -> (Submitter, Completions)
where
    M: Scheduled<Ready: Send> + Send + Sync + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    let in_flight = Arc::new(InFlight {
        count: AtomicUsize::new(0),
        capacity,
    });
    let flow = FlowOf {
        scheduler: scheduler.clone(),
        id: scheduler.open_flow(&model, role),
        context: Arc::new(FlowContext::new(model, role, sender, counters, scheduler)),
    };
    let submitter = Submitter {
        flow: Box::new(flow),
        in_flight: in_flight.clone(),
    };
    let completions = Completions {
        receiver,
        in_flight,
    };
    (submitter, completions)
}

impl Submitter {
    /// Queues a text; never blocks. `id` comes back with its vector.
    ///
    /// A text whose vector is known comes back at once. After [`super::Engine::shutdown`] the text comes back as
    /// [`super::EmbeddingError::ShutDown`].
    pub fn submit(&self, priority: Priority, id: u64, text: impl Into<Arc<str>>) {
        self.in_flight.enter();
        self.flow.push(id, priority, text.into(), None);
    }

    /// Says that no text follows soon, so those that were submitted need not wait for more of a batch.
    pub fn flush(&self) {
        self.flow.flush();
    }

    /// As [`submit`](Self::submit), in the place of the text with the number `old`. Returns whether that was withdrawn:
    /// then nothing comes back for it. Otherwise its vector is there already.
    pub fn replace(
        &self,
        old: u64,
        priority: Priority,
        id: u64,
        text: impl Into<Arc<str>>,
    ) -> bool {
        let withdrawn = self.flow.push(id, priority, text.into(), Some(old));
        if !withdrawn {
            self.in_flight.enter();
        }
        withdrawn
    }

    /// Takes a text back. Returns whether nothing comes back for it; otherwise its vector is there already.
    #[must_use]
    pub fn withdraw(&self, id: u64) -> bool {
        let withdrawn = self.flow.withdraw(id);
        if withdrawn {
            self.in_flight.leave(1);
        }
        withdrawn
    }
}

impl<M> Flow for FlowOf<M>
where
    M: Scheduled<Ready: Send> + Send + Sync,
{
    fn push(&self, id: u64, priority: Priority, text: Arc<str>, old: Option<u64>) -> bool {
        let (request, context) = (self.request(id), &self.context);
        self.scheduler.push(request, context, priority, text, old)
    }

    fn flush(&self) {
        self.scheduler.flush();
    }

    fn withdraw(&self, id: u64) -> bool {
        self.scheduler.withdraw(self.request(id))
    }
}

impl<M: Scheduled> FlowOf<M> {
    fn request(&self, id: u64) -> Request {
        Request { flow: self.id, id }
    }
}

impl InFlight {
    fn enter(&self) {
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        debug_assert!(
            before < self.capacity,
            "more texts in flight than the flow was opened for"
        );
    }

    fn leave(&self, texts: usize) {
        self.count.fetch_sub(texts, Ordering::Relaxed);
    }
}

impl<M: Scheduled> Drop for FlowOf<M> {
    fn drop(&mut self) {
        self.scheduler.close_flow(self.id);
    }
}

impl Completions {
    /// Waits for the next vector; `None` when the [`Submitter`] was dropped and every text taken from it came back.
    ///
    /// Cancellation safe: a vector is lost neither by dropping this future nor by racing it in a `select!`.
    pub async fn next(&mut self) -> Option<Embedded> {
        let embedded = self.receiver.recv().await?;
        self.in_flight.leave(1);
        Some(embedded)
    }

    /// The next vector if there is one already.
    pub fn try_next(&mut self) -> Option<Embedded> {
        let embedded = self.receiver.try_recv().ok()?;
        self.in_flight.leave(1);
        Some(embedded)
    }

    /// Waits for at least one vector and appends all that are there, at most `limit`. Returns their number; 0 where
    /// [`Completions::next`] would return `None`, or where `limit` is 0.
    ///
    /// Cancellation safe: when the future is dropped, nothing was taken.
    pub async fn next_many(&mut self, buffer: &mut Vec<Embedded>, limit: usize) -> usize {
        let received = self.receiver.recv_many(buffer, limit).await;
        self.in_flight.leave(received);
        received
    }
}
