//! Sends the texts of all jobs that use one service: one set of servers with one key.
//!
//! ```text
//!  job A ─ Submitter ──┐                 ┌── one thread ──┐          ┌── request ──▶ server
//!  job B ─ Submitter ──┼──▶ Scheduler ──▶│ ready? a batch │──▶ tasks ┼── request ──▶ server
//!  search ─ embed() ───┘                 └────────────────┘          └── …
//! ```
//!
//! The scheduler is that of the models of this process, so live texts go before backfill, jobs take turns, and equal texts
//! are sent once. A batch is cut only when it can be sent: texts that come meanwhile still join it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::batch::RemoteVector;
use super::fleet::Fleet;
use super::in_flight::InFlight;
use super::model::{RemoteModel, RemoteService};
use super::numbers::estimate_tokens;
use crate::embedding::error::EmbeddingError;
use crate::embedding::flow_counters::{FlowCounters, each_once};
use crate::embedding::local::worker::panic_message;
use crate::embedding::schedule::linger::Linger;
use crate::embedding::schedule::queue::{EntryId, Room};
use crate::embedding::schedule::scheduler::{Computation, Memory, PendingText, Scheduler};

/// How long texts wait for others, unless none follows. Short beside any request.
const LINGER: Duration = Duration::from_millis(5);

type Text = (EntryId, PendingText<RemoteModel>);

/// What the thread of a service works with.
struct Sender {
    fleet: Arc<Fleet>,
    scheduler: Arc<Scheduler<RemoteModel>>,
    in_flight: Arc<InFlight>,
    end: CancellationToken,
    requests: Handle,
}

/// Starts a service, and the thread that cuts its batches until `end`. Its requests run on the runtime `requests`.
///
/// # Errors
/// The system has no room for a thread.
pub(super) fn start(
    fleet: Fleet,
    memory: Memory,
    requests: Handle,
    end: CancellationToken,
) -> Result<(RemoteService, JoinHandle<()>), EmbeddingError> {
    let linger = Linger::at_least(Instant::now(), LINGER);
    let service = RemoteService {
        fleet: Arc::new(fleet),
        scheduler: Arc::new(Scheduler::new(usize::MAX, linger, memory)),
        in_flight: Arc::new(InFlight::at_most(1)),
        end,
        requests,
    };
    let sender = Sender {
        fleet: service.fleet.clone(),
        scheduler: service.scheduler.clone(),
        in_flight: service.in_flight.clone(),
        end: service.end.clone(),
        requests: service.requests.clone(),
    };
    let thread = thread::Builder::new().name("embed-remote".into());
    let started = thread.spawn(move || sender.run());
    let started = started.map_err(|error| EmbeddingError::Threads(Arc::new(error)))?;
    Ok((service, started))
}

impl Sender {
    /// Cuts a batch whenever one can be sent, until the service ends.
    fn run(self) {
        let allowed = || {
            let allowed = async {
                self.in_flight.enter().await;
                self.fleet.ready().await;
            };
            self.requests
                .block_on(self.end.run_until_cancelled(allowed))
        };
        while allowed().is_some()
            && let Some(texts) = self.scheduler.next_texts(room, tokens_of)
        {
            self.send(texts);
        }
    }

    fn send(&self, texts: Vec<Text>) {
        let (fleet, scheduler) = (self.fleet.clone(), self.scheduler.clone());
        let (in_flight, end) = (self.in_flight.clone(), self.end.clone());
        self.requests.spawn(async move {
            let sent = AssertUnwindSafe(embed(&fleet, &scheduler, &texts)).catch_unwind();
            // Without an end, the texts come back by the shutdown of the scheduler.
            if let Some(Err(panic)) = end.run_until_cancelled(sent).await {
                fail(&scheduler, &texts, &panicked(&texts, &*panic));
            }
            scheduler.batch_ended();
            in_flight.leave();
        });
    }
}

/// How many texts the model of this one takes at a time.
fn room(text: &PendingText<RemoteModel>) -> Room {
    let options = text.model.options();
    Room {
        texts: options.max_batch(),
        tokens: options.max_batch_tokens(),
    }
}

fn tokens_of(text: &PendingText<RemoteModel>) -> usize {
    estimate_tokens(&text.text)
}

/// Embeds a batch, whose texts have one model and one role, and sends each result to those who asked for it.
async fn embed(fleet: &Fleet, scheduler: &Scheduler<RemoteModel>, batch: &[Text]) {
    let Some((_, first)) = batch.first() else {
        return;
    };
    let fitted = batch.iter().map(|(_, text)| text.model.fit(&text.text));
    let (texts, are_cut): (Vec<Arc<str>>, Vec<bool>) = fitted.unzip();
    let (began, sent) = (Instant::now(), AtomicU64::new(0));
    let results = fleet
        .embed_counting(first.model.options(), first.role, &texts, &sent)
        .await;
    let share = began.elapsed() / texts.len().max(1) as u32;
    let (mut computed, mut failed) = (Vec::new(), Vec::new());
    match results {
        Ok(results) => {
            for (((entry, text), is_cut), result) in batch.iter().zip(are_cut).zip(results) {
                match result {
                    Ok(mut vector) => {
                        vector.is_truncated |= is_cut;
                        let done = computation(text, vector, share);
                        computed.extend(scheduler.finish(*entry, done));
                    }
                    Err(error) => failed.extend(scheduler.fail(*entry, &error.into())),
                }
            }
        }
        Err(error) => failed = fail(scheduler, batch, &error.into()),
    }
    let with_vectors = each_once(computed);
    with_vectors.iter().for_each(|flow| flow.note_batch());
    let sent = sent.into_inner();
    let all = each_once(with_vectors.into_iter().chain(failed).collect());
    all.iter().for_each(|flow| flow.note_requests(sent));
}

/// Sends one error for all texts of a batch. Returns the flows that they are counted for.
fn fail(
    scheduler: &Scheduler<RemoteModel>,
    batch: &[Text],
    error: &EmbeddingError,
) -> Vec<Arc<FlowCounters>> {
    batch
        .iter()
        .filter_map(|(entry, _)| scheduler.fail(*entry, error))
        .collect()
}

fn panicked(batch: &[Text], panic: &(dyn Any + Send)) -> EmbeddingError {
    let model = batch.first().map(|(_, text)| text.model.options().model());
    EmbeddingError::Panicked {
        model: model.unwrap_or_default().into(),
        reason: panic_message(panic),
    }
}

fn computation(
    text: &PendingText<RemoteModel>,
    vector: RemoteVector,
    share: Duration,
) -> Computation {
    let price = text.model.options().price_per_million().unwrap_or(0.0);
    Computation {
        cost: vector.tokens as f64 * price / 1e6,
        key: text.key,
        vector: vector.vector,
        is_truncated: vector.is_truncated,
        tokens: usize::try_from(vector.tokens).unwrap_or(usize::MAX),
        share,
    }
}
