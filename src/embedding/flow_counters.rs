//! What the texts of one flow have cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Costs are counted in billionths: a text costs a few millionths.
const NANOS: f64 = 1e9;

/// Counts of the texts of a flow, or of several one after the other: see [`Engine::queue`](super::Engine::queue).
#[derive(Debug, Default)]
pub struct FlowCounters {
    texts: AtomicU64,
    cache_hits: AtomicU64,
    tokens: AtomicU64,
    batches: AtomicU64,
    requests: AtomicU64,
    inference_micros: AtomicU64,
    cost_nanos: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FlowTotals {
    /// Texts that got a vector.
    pub texts: u64,
    /// Those of them whose vector was known, or computed for an equal text at the same time.
    pub cache_hits: u64,
    /// Tokens of the texts that were computed.
    pub tokens: u64,
    /// Batches with at least one of these texts.
    pub batches: u64,
    /// Requests to servers with at least one of these texts, those that failed too.
    pub requests: u64,
    /// The flow's share of the time of these batches, by tokens: the time of one thread, or of requests to a server.
    pub inference: Duration,
    /// What the tokens cost at a server, in the currency of the price that the job states; 0 without a price.
    pub cost: f64,
}

impl FlowCounters {
    /// The counts now. Each is exact; together they need not be of one moment.
    pub fn totals(&self) -> FlowTotals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FlowTotals {
            texts: get(&self.texts),
            cache_hits: get(&self.cache_hits),
            tokens: get(&self.tokens),
            batches: get(&self.batches),
            requests: get(&self.requests),
            inference: Duration::from_micros(get(&self.inference_micros)),
            cost: get(&self.cost_nanos) as f64 / NANOS,
        }
    }

    /// A text got its vector.
    pub(super) fn note_text(&self) {
        self.texts.fetch_add(1, Ordering::Relaxed);
    }

    /// The vector of a text need not be computed.
    pub(super) fn note_hit(&self) {
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// A text of so many tokens took this share of the time of its batch.
    pub(super) fn note_computed(&self, tokens: usize, share: Duration) {
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        let micros = share.as_micros() as u64;
        self.inference_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// A text cost so much.
    pub(super) fn note_cost(&self, cost: f64) {
        self.cost_nanos
            .fetch_add((cost * NANOS) as u64, Ordering::Relaxed);
    }

    /// A batch with texts of this flow is finished.
    pub(super) fn note_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// So many requests were sent for texts of this flow.
    pub(super) fn note_requests(&self, requests: u64) {
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }
}

/// The flows, each once: what is counted by batch must not count by text.
pub(super) fn each_once(mut flows: Vec<Arc<FlowCounters>>) -> Vec<Arc<FlowCounters>> {
    flows.sort_unstable_by_key(|flow| Arc::as_ptr(flow).addr());
    flows.dedup_by(|a, b| Arc::ptr_eq(a, b));
    flows
}
