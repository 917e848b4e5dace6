//! What the workers and the callers' ends share: the queue behind its lock, the vectors that are known, and the wake-ups of
//! idle workers.
//!
//! ```text
//!  Submitter ──push──▶ ┌───────────┐ ──next_work──▶ worker ──┐
//!                      │ Scheduler │ ◀─push_tokenized─┤       │
//!  Submitter ──push──▶ └───────────┘ ◀─────finish─────┘       │
//!                          │  ▲                              │
//!                          ▼  └──────── known vectors ◀──────┘
//!                      Completions
//! ```
//!
//! Batches for devices are taken by workers of their own, by [`Scheduler::next_run`], which also says for which device one
//! is.
//!
//! This file knows neither threads nor the async runtime; [`crate::embedding::local::worker`] and
//! [`crate::embedding::channel`] do.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::cache::{KnownVector, VectorCache};
use super::linger::Linger;
use super::queue::{
    DeviceRoom, EntryId, FlowId, FlowLimits, ModelKey, Priority, Queue, Request, Room, TextKey,
    WorkItem,
};
use crate::embedding::error::EmbeddingError;
use crate::embedding::flow_counters::FlowCounters;
use crate::embedding::local::assignment::Assignment;
use crate::embedding::local::device::Device;
use crate::embedding::local::loaded::{LoadedModel, Tokens};
use crate::embedding::role::TextRole;

/// Of a model on devices so many batches of short texts are tokenized ahead for each of them.
const BATCHES_AHEAD: usize = 4;
const TOKENS_OF_SHORT_TEXT: usize = 32;

/// The vector of a text, or why it has none. Each submitted text yields exactly one, in any order.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The id that the text was submitted with.
    pub id: u64,
    /// As many values as the model has dimensions, all finite and not all zero.
    pub vector: Result<Vec<f32>, EmbeddingError>,
    /// The text was longer than the model's window, and what is beyond it did not count.
    pub is_truncated: bool,
    /// Tokens that the model has read for it, special ones and those of its prompt included; 0 without a vector.
    pub tokens: usize,
}

/// A model whose texts are scheduled.
pub(crate) trait Scheduled {
    /// A text that only has to be run.
    type Ready;

    /// What tells the vectors of texts in this role from those of other models, options, prompts and tasks.
    fn identity_of(&self, role: TextRole) -> [&str; 2];

    /// What it takes of a flow.
    fn flow_limits(&self) -> FlowLimits {
        FlowLimits::default()
    }

    /// Whether texts of both roles may share a batch.
    fn mixes_roles(&self) -> bool;
}

/// What is common to the texts of a flow.
pub(crate) struct FlowContext<M> {
    pub model: Arc<M>,
    pub role: TextRole,
    /// Unbounded by type, because a worker must not wait for a slow receiver. By contract it never holds more than
    /// the capacity of the flow.
    sender: mpsc::UnboundedSender<Embedded>,
    /// The engine's counts.
    counts: Arc<Counts>,
    /// The flow's own.
    flow: Arc<FlowCounters>,
}

/// Texts since the engine was created.
#[derive(Debug, Default)]
struct Counts {
    embedded: AtomicU64,
    computed: AtomicU64,
}

/// A text that no worker has taken yet.
pub(crate) struct PendingText<M> {
    pub model: Arc<M>,
    pub role: TextRole,
    pub text: Arc<str>,
    pub key: TextKey,
}

/// A tokenized text that no worker has run yet.
pub(crate) struct TokenizedText {
    pub model: Arc<LoadedModel>,
    pub tokens: Tokens,
    pub key: TextKey,
}

/// What was computed for a text, and what it took.
pub(crate) struct Computation {
    pub key: TextKey,
    pub vector: Vec<f32>,
    pub is_truncated: bool,
    pub tokens: usize,
    /// The text's part of the time of its batch.
    pub share: Duration,
    /// What the text cost; 0 in this process.
    pub cost: f64,
}

/// A unit of work for an inference thread.
pub(crate) type EmbeddingWork = WorkItem<PendingText<LoadedModel>, TokenizedText>;

/// A batch for a device.
pub(crate) struct DeviceRun {
    pub run: Assignment,
    pub texts: Vec<(EntryId, TokenizedText)>,
}

/// What a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    /// Everything but batches for devices.
    Ordinary,
    /// Batches for devices.
    OfDevices,
}

/// What all schedulers of an engine share.
#[derive(Clone)]
pub(crate) struct Memory {
    known: Arc<VectorCache>,
    counts: Arc<Counts>,
}

/// The queue of the flows of some models, shared by those who compute their vectors and the submitters.
pub(crate) struct Scheduler<M: Scheduled> {
    state: Mutex<SchedulerState<M>>,
    /// For ordinary workers.
    work_available: Condvar,
    /// For those of devices.
    run_available: Condvar,
    memory: Memory,
    /// Maximum size of a batch in padded tokens.
    batch_tokens: AtomicUsize,
}

struct SchedulerState<M: Scheduled> {
    queue: Queue<Arc<FlowContext<M>>, PendingText<M>, M::Ready>,
    linger: Linger,
    /// Workers that wait on the condition variable.
    idle_workers: usize,
    /// The same of devices.
    idle_device_workers: usize,
    /// Workers that run a batch.
    busy_workers: usize,
    closed: bool,
}

impl Memory {
    /// With vectors of at most `cache_bytes`.
    pub(crate) fn new(cache_bytes: u64) -> Self {
        Self {
            known: Arc::new(VectorCache::new(cache_bytes)),
            counts: Arc::default(),
        }
    }

    /// Number of texts that got a vector.
    pub(crate) fn embedded_texts(&self) -> u64 {
        self.counts.embedded.load(Ordering::Relaxed)
    }

    /// Number of vectors that were computed for them. The others were known, or wanted several times.
    pub(crate) fn computed_texts(&self) -> u64 {
        self.counts.computed.load(Ordering::Relaxed)
    }
}

impl<M: Scheduled> FlowContext<M> {
    pub(crate) fn new(
        model: Arc<M>,
        role: TextRole,
        sender: mpsc::UnboundedSender<Embedded>,
        flow: Arc<FlowCounters>,
        scheduler: &Scheduler<M>,
    ) -> Self {
        Self {
            model,
            role,
            sender,
            counts: scheduler.memory.counts.clone(),
            flow,
        }
    }

    /// Sends a result to the receiver of the flow, if it still exists.
    fn send(&self, embedded: Embedded) {
        if embedded.vector.is_ok() {
            self.counts.embedded.fetch_add(1, Ordering::Relaxed);
            self.flow.note_text();
        }
        let _ = self.sender.send(embedded);
    }

    fn send_known(&self, id: u64, known: &KnownVector) {
        self.send(Embedded {
            id,
            vector: Ok(known.vector.clone()),
            is_truncated: known.is_truncated,
            tokens: known.tokens,
        });
    }

    fn send_error(&self, id: u64, error: EmbeddingError) {
        self.send(Embedded {
            id,
            vector: Err(error),
            is_truncated: false,
            tokens: 0,
        });
    }
}

impl PendingText<LoadedModel> {
    /// The same text as token ids.
    pub(crate) fn tokenized(self, tokens: Tokens) -> TokenizedText {
        TokenizedText {
            model: self.model,
            tokens,
            key: self.key,
        }
    }
}

impl Scheduled for LoadedModel {
    type Ready = TokenizedText;

    fn identity_of(&self, role: TextRole) -> [&str; 2] {
        LoadedModel::identity_of(self, role)
    }

    /// A graph takes the number of one task for all texts of a batch.
    fn mixes_roles(&self) -> bool {
        self.has_one_task()
    }

    /// For a device a batch is cut when it can be run, or one run before: so it is as full as it can be.
    fn flow_limits(&self) -> FlowLimits {
        let (common, devices) = (FlowLimits::default(), &self.base.devices);
        if self.base.session().provider().uses_processor() {
            return common;
        }
        let tokens: usize = devices.iter().filter_map(Device::batch_tokens).sum();
        let texts = BATCHES_AHEAD * tokens / TOKENS_OF_SHORT_TEXT;
        FlowLimits {
            on_device: true,
            tokenized_texts: common.tokenized_texts.max(texts),
        }
    }
}

impl<M: Scheduled> Scheduler<M> {
    /// An empty queue for batches of at most `batch_tokens` padded tokens. Texts wait for others by this rule.
    pub(crate) fn new(batch_tokens: usize, linger: Linger, memory: Memory) -> Self {
        Self {
            state: Mutex::new(SchedulerState {
                queue: Queue::new(),
                linger,
                idle_workers: 0,
                idle_device_workers: 0,
                busy_workers: 0,
                closed: false,
            }),
            work_available: Condvar::new(),
            run_available: Condvar::new(),
            memory,
            batch_tokens: AtomicUsize::new(batch_tokens),
        }
    }

    /// Batches have at most so many padded tokens from now on.
    pub(crate) fn set_batch_tokens(&self, batch_tokens: usize) {
        self.batch_tokens.store(batch_tokens, Ordering::Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Opens a flow of texts for this model.
    pub(crate) fn open_flow(&self, model: &Arc<M>, role: TextRole) -> FlowId {
        // Models lie at even addresses.
        let apart = !model.mixes_roles() && role == TextRole::Query;
        let key = model_key(model) + usize::from(apart);
        let limits = model.flow_limits();
        lock(&self.state).queue.open_flow(key, limits)
    }

    /// Queues a text, or answers at once: where its vector is known, or the engine is shut down.
    ///
    /// With `old`, the text takes the place of the one with that number, of which no vector will come. Returns whether
    /// that was still queued.
    pub(crate) fn push(
        &self,
        request: Request,
        context: &Arc<FlowContext<M>>,
        priority: Priority,
        text: Arc<str>,
        old: Option<u64>,
    ) -> bool {
        let identity = context.model.identity_of(context.role);
        let key = self.memory.known.key(identity, &text);
        match self.memory.known.get(key) {
            Some(known) => self.answer(request, context, old, &known),
            None => self.enqueue(request, context, priority, (key, text), old),
        }
    }

    /// Sends a vector that is known in place of queueing its text.
    fn answer(
        &self,
        request: Request,
        context: &FlowContext<M>,
        old: Option<u64>,
        known: &KnownVector,
    ) -> bool {
        let withdrawn = old.is_some_and(|old| self.withdraw(Request { id: old, ..request }));
        context.flow.note_hit();
        context.send_known(request.id, known);
        withdrawn
    }

    /// Queues a text whose vector was not known a moment ago.
    fn enqueue(
        &self,
        request: Request,
        context: &Arc<FlowContext<M>>,
        priority: Priority,
        (key, text): (TextKey, Arc<str>),
        old: Option<u64>,
    ) -> bool {
        let mut state = lock(&self.state);
        // A worker may have finished the text since. Under the lock it is either known or in the queue.
        if let Some(known) = self.memory.known.get(key) {
            drop(state);
            return self.answer(request, context, old, &known);
        }
        if state.closed {
            drop(state);
            context.send_error(request.id, EmbeddingError::ShutDown);
            return false;
        }
        let requester = context.clone();
        let pending = || PendingText {
            model: context.model.clone(),
            role: context.role,
            text,
            key,
        };
        let queue = &mut state.queue;
        let withdrawn = match old {
            Some(old) => queue.replace(old, request, requester, priority, key, pending),
            None => {
                queue.push(request, requester, priority, key, pending);
                false
            }
        };
        state.linger.text_arrived(Instant::now());
        if state.idle_workers > 0 {
            self.work_available.notify_one();
        }
        withdrawn
    }

    /// Cuts batches of the texts that wait for others.
    pub(crate) fn flush(&self) {
        let mut state = lock(&self.state);
        state.linger.flush();
        if state.idle_workers > 0 {
            self.work_available.notify_one();
        }
        if state.idle_device_workers > 0 {
            self.run_available.notify_one();
        }
    }

    /// Takes a text back, of which no vector will come. Returns whether it was still queued.
    pub(crate) fn withdraw(&self, request: Request) -> bool {
        lock(&self.state).queue.withdraw(request).is_some()
    }

    /// Closes a flow and drops its queued texts.
    pub(crate) fn close_flow(&self, flow: FlowId) {
        // Bound to a name, so that the lock is released before thousands of texts are freed.
        let dropped = lock(&self.state).queue.close_flow(flow);
        drop(dropped);
    }

    /// Waits until `take` finds work for this worker; `None` when the engine is shut down. `take` gets the time, and whether
    /// texts wait for others, and if not, how large a batch may be.
    fn wait_for<T>(
        &self,
        worker: Worker,
        mut take: impl FnMut(&mut SchedulerState<M>, Instant, Option<usize>) -> Option<T>,
    ) -> Option<T> {
        let available = match worker {
            Worker::Ordinary => &self.work_available,
            Worker::OfDevices => &self.run_available,
        };
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return None;
            }
            let now = Instant::now();
            let batch_tokens = self.batch_tokens.load(Ordering::Relaxed);
            let is_full = state.queue.tokens() >= batch_tokens;
            let wait_until = state.linger.wait_until(now, is_full);
            let budget = wait_until.is_none().then_some(batch_tokens);
            if let Some(work) = take(&mut state, now, budget) {
                self.wake_next(&state, worker);
                return Some(work);
            }
            *state.idle(worker) += 1;
            state = match wait_until {
                None => available
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    let waited = available.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            *state.idle(worker) -= 1;
        }
    }

    /// A worker that takes work wakes the next one if there is more. So one wake-up per submitted text is enough, and a burst
    /// does not wake all workers for one text.
    fn wake_next(&self, state: &SchedulerState<M>, worker: Worker) {
        let queue = &state.queue;
        let wakes_ordinary = match worker {
            Worker::Ordinary => state.idle_workers > 0 && queue.has_work(),
            // There may be room for more tokenized texts.
            Worker::OfDevices => state.idle_workers > 0 && queue.needs_tokenizing(),
        };
        if wakes_ordinary {
            self.work_available.notify_one();
        }
        if worker == Worker::OfDevices && state.idle_device_workers > 0 && queue.has_work() {
            self.run_available.notify_one();
        }
    }

    /// A worker has finished a batch.
    pub(crate) fn batch_ended(&self) {
        let mut state = lock(&self.state);
        state.busy_workers -= 1;
        // The calling thread is about to be idle.
        let idle = state.all_idle() + 1;
        state.observe_load(Instant::now(), idle);
    }

    /// Sends the vector of a text to all who asked for it, and keeps it. Returns the flow that it is counted for: the first
    /// that asked.
    pub(crate) fn finish(&self, entry: EntryId, done: Computation) -> Option<Arc<FlowCounters>> {
        let known = KnownVector {
            vector: done.vector,
            is_truncated: done.is_truncated,
            tokens: done.tokens,
        };
        self.memory.counts.computed.fetch_add(1, Ordering::Relaxed);
        // Known before the entry is gone, so that it is not computed once more in between.
        let known = self.memory.known.put(done.key, known);
        let mut payer = None;
        for (request, context) in self.take_requests(entry) {
            match payer {
                Some(_) => context.flow.note_hit(),
                None => {
                    context.flow.note_computed(done.tokens, done.share);
                    context.flow.note_cost(done.cost);
                    payer = Some(context.flow.clone());
                }
            }
            context.send_known(request.id, &known);
        }
        payer
    }

    /// Sends the error of a text to all who asked for it. Returns the flow that it is counted for, as
    /// [`finish`](Self::finish) does.
    pub(crate) fn fail(&self, entry: EntryId, error: &EmbeddingError) -> Option<Arc<FlowCounters>> {
        let requests = self.take_requests(entry);
        let payer = requests.first().map(|(_, context)| context.flow.clone());
        for (request, context) in requests {
            context.send_error(request.id, error.clone());
        }
        payer
    }

    fn take_requests(&self, entry: EntryId) -> Vec<(Request, Arc<FlowContext<M>>)> {
        lock(&self.state).queue.finish(entry)
    }

    /// Rejects all texts that have no vector yet, and ends the workers after the work that they are at.
    pub(crate) fn shut_down(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let requests = state.queue.drain();
        drop(state);
        self.work_available.notify_all();
        self.run_available.notify_all();
        for (request, context) in requests {
            context.send_error(request.id, EmbeddingError::ShutDown);
        }
    }
}

impl Scheduler<LoadedModel> {
    /// Waits for work on the processor; `None` when the engine is shut down. After a batch, call
    /// [`batch_ended`](Self::batch_ended).
    pub(crate) fn next_work(&self) -> Option<EmbeddingWork> {
        self.wait_for(Worker::Ordinary, |state, now, budget| {
            let limit = |_: &TokenizedText| budget.unwrap_or(0);
            let limit: Option<&dyn Fn(&TokenizedText) -> usize> = budget.map(|_| &limit as _);
            let work = state.queue.next_work(state.idle_workers, limit)?;
            if let WorkItem::RunBatch { .. } = work {
                state.begin_batch(now);
            }
            Some(work)
        })
    }

    /// Waits for a batch that a device has room for; `None` when the engine is shut down. Afterwards drop its assignment, and
    /// call [`batch_ended`](Self::batch_ended).
    pub(crate) fn next_run(&self) -> Option<DeviceRun> {
        self.wait_for(Worker::OfDevices, |state, now, budget| {
            let budget = budget?;
            let room = |text: &TokenizedText| {
                let devices = &text.model.base.devices;
                let vacancy = devices.vacancy()?;
                Some(DeviceRoom {
                    device: vacancy.device,
                    budget: devices.at(vacancy.device).batch_tokens().unwrap_or(budget),
                    others: vacancy.others,
                })
            };
            let (room, texts) = state.queue.next_run(state.idle_device_workers, room)?;
            let (_, first) = texts.first()?;
            // Under the lock, so that the next one is for another device.
            let run = Assignment::new(first.model.base.clone(), room.device);
            state.begin_batch(now);
            Some(DeviceRun { run, texts })
        })
    }

    /// A device that was lost computes again.
    pub(crate) fn device_returned(&self) {
        // A worker that has looked and does not wait yet holds the lock.
        drop(lock(&self.state));
        self.run_available.notify_all();
    }

    /// Lets a worker that waits look for work again. For one that is about to wait for something else: it was told of work
    /// that it will not take.
    pub(crate) fn look_again(&self) {
        // A worker that has looked and does not wait yet holds the lock.
        drop(lock(&self.state));
        self.work_available.notify_one();
    }

    /// Returns tokenized texts to the queue.
    pub(crate) fn push_tokenized(&self, texts: Vec<(EntryId, TokenizedText)>) {
        let mut state = lock(&self.state);
        for (entry, text) in texts {
            let length = text.tokens.len();
            state.queue.push_tokenized(entry, length, text);
        }
        if state.idle_device_workers > 0 {
            self.run_available.notify_one();
        }
    }
}

impl<M: Scheduled> Scheduler<M> {
    /// Waits for texts of a model that takes them as they are; `None` when the engine is shut down. After they have been
    /// embedded, call [`batch_ended`](Self::batch_ended).
    pub(crate) fn next_texts(
        &self,
        room: impl Fn(&PendingText<M>) -> Room,
        tokens: impl Fn(&PendingText<M>) -> usize,
    ) -> Option<Vec<(EntryId, PendingText<M>)>> {
        self.wait_for(Worker::Ordinary, |state, now, budget| {
            budget?;
            let texts = state.queue.next_texts(&room, &tokens)?;
            state.begin_batch(now);
            Some(texts)
        })
    }
}

impl<M: Scheduled> SchedulerState<M> {
    /// A worker begins a batch, which has just been taken.
    fn begin_batch(&mut self, now: Instant) {
        self.busy_workers += 1;
        self.observe_load(now, self.all_idle());
        if !self.queue.has_work() {
            self.linger.all_texts_taken();
        }
    }

    /// The idle workers of this kind.
    fn idle(&mut self, worker: Worker) -> &mut usize {
        match worker {
            Worker::Ordinary => &mut self.idle_workers,
            Worker::OfDevices => &mut self.idle_device_workers,
        }
    }

    fn all_idle(&self) -> usize {
        self.idle_workers + self.idle_device_workers
    }

    fn observe_load(&mut self, now: Instant, idle: usize) {
        let busy = self.busy_workers;
        self.linger.observe(now, busy, busy + idle);
    }
}

/// The address identifies a model for as long as it is loaded, and every queued text keeps it loaded.
fn model_key<M>(model: &Arc<M>) -> ModelKey {
    Arc::as_ptr(model).addr()
}

/// Locks a mutex of the engine. No code that can panic runs under these locks, so the data of a poisoned one is sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OneModel;

    impl Scheduled for OneModel {
        type Ready = ();

        fn mixes_roles(&self) -> bool {
            true
        }

        fn identity_of(&self, _role: TextRole) -> [&str; 2] {
            ["model", ""]
        }
    }

    /// A scheduler of one model with a flow of texts, and the end that gets the vectors.
    struct Scene {
        scheduler: Scheduler<OneModel>,
        memory: Memory,
        flow: FlowId,
        context: Arc<FlowContext<OneModel>>,
        receiver: mpsc::UnboundedReceiver<Embedded>,
    }

    impl Scene {
        fn new(linger: Linger) -> Scene {
            let memory = Memory::new(1 << 20);
            let scheduler = Scheduler::new(1_000, linger, memory.clone());
            let (model, role) = (Arc::new(OneModel), TextRole::Document);
            let (sender, receiver) = mpsc::unbounded_channel();
            let flow = scheduler.open_flow(&model, role);
            let context = FlowContext::new(model, role, sender, Arc::default(), &scheduler);
            Scene {
                scheduler,
                memory,
                flow,
                context: Arc::new(context),
                receiver,
            }
        }

        fn request(&self, id: u64) -> Request {
            Request {
                flow: self.flow,
                id,
            }
        }

        fn push(&self, id: u64, text: &str) {
            let (request, context) = (self.request(id), &self.context);
            let text = text.into();
            self.scheduler
                .push(request, context, Priority::Live, text, None);
        }

        /// The next batch of a worker: at most ten short texts.
        fn next_texts(&self) -> Vec<(EntryId, PendingText<OneModel>)> {
            let room = Room {
                texts: 10,
                tokens: 100,
            };
            let texts = self.scheduler.next_texts(|_| room, |_| 1);
            texts.expect("the scheduler is not shut down")
        }
    }

    #[test]
    fn a_worker_leaves_texts_alone_that_wait_for_others() {
        let hour = Duration::from_secs(3600);
        let scene = Scene::new(Linger::at_least(Instant::now(), hour));
        scene.push(1, "one");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| scene.next_texts().len());
            while lock(&scene.scheduler.state).idle_workers == 0 && !worker.is_finished() {
                std::thread::yield_now();
            }
            scene.push(2, "another one");
            scene.scheduler.flush();
            assert_eq!(worker.join().unwrap(), 2);
        });
    }

    #[test]
    fn near_saturation_a_text_waits_for_others() {
        let scene = Scene::new(Linger::new(Instant::now()));
        scene.push(1, "one");
        scene.next_texts();
        // The only worker has been busy for a while.
        let earlier = Instant::now().checked_sub(Duration::from_secs(5));
        let earlier = earlier.expect("the machine was started before");
        let mut state = lock(&scene.scheduler.state);
        state.linger = Linger::new(earlier);
        state.observe_load(earlier, 0);
        drop(state);
        let begin = Instant::now();
        scene.push(2, "another one");
        scene.scheduler.batch_ended();
        assert_eq!(scene.next_texts().len(), 1);
        let waited = begin.elapsed();
        assert!(waited >= Duration::from_millis(8), "{waited:?}");
    }

    /// The moment that is tested lies between two statements of `push`; the second of them comes late here.
    #[test]
    fn a_text_whose_vector_has_just_been_computed_is_not_computed_again() {
        let mut scene = Scene::new(Linger::new(Instant::now()));
        let text: Arc<str> = "a text".into();
        let identity = scene.context.model.identity_of(scene.context.role);
        let key = scene.memory.known.key(identity, &text);

        scene.push(1, &text);
        let work = scene.next_texts();
        let done = Computation {
            key,
            vector: vec![1.0],
            is_truncated: false,
            tokens: 3,
            share: Duration::ZERO,
            cost: 0.0,
        };
        scene.scheduler.finish(work[0].0, done);
        let (request, context) = (scene.request(2), &scene.context);
        scene
            .scheduler
            .enqueue(request, context, Priority::Live, (key, text), None);

        assert_eq!(scene.receiver.try_recv().unwrap().id, 1);
        let second = scene.receiver.try_recv().expect("it was known");
        assert_eq!((second.id, second.vector.unwrap()), (2, vec![1.0]));
        assert_eq!(scene.memory.computed_texts(), 1);
    }
}
