//! What is asked for, and what is answered: the words of the queue's callers.

/// Maximum number of tokenized texts that a flow keeps under backlog. It bounds memory and decides how well batches can
/// be cut: measured padding efficiency is 98 % for 512 texts, 99 % for 1024 and 99.3 % for all at once.
const MAX_TOKENIZED_TEXTS: usize = 1024;

/// How urgent a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Someone waits for it: a row that has just changed, or a search.
    Live,
    /// A row that existed before the job.
    Backfill,
}

/// Identifies an open flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowId(pub(super) u64);

/// Identifies a model, and the role of the texts where those of both may not share batches. Flows with equal keys share
/// batches.
pub(crate) type ModelKey = usize;

/// Identifies a text with its role and its model: what has equal keys has one vector.
pub(crate) type TextKey = u128;

/// What the model of a flow takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    /// Whether batches of the model are run on devices with a memory of their own: then they are taken by
    /// [`Queue::next_run`](super::Queue::next_run).
    pub on_device: bool,
    /// Tokenized texts that are kept of the flow, from which batches are cut.
    pub tokenized_texts: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            on_device: false,
            tokenized_texts: MAX_TOKENIZED_TEXTS,
        }
    }
}

/// Identifies an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId(pub(super) u64);

/// Who asks for a text: the flow, and the flow's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub flow: FlowId,
    pub id: u64,
}

/// What a worker has to do next, for pending texts `P` and tokenized texts `T`.
#[derive(Debug)]
pub(crate) enum WorkItem<P, T> {
    /// Tokenize these texts and return them with [`Queue::push_tokenized`](super::Queue::push_tokenized).
    Tokenize { texts: Vec<(EntryId, P)> },
    /// Run these texts as one batch, and take their requests with [`Queue::finish`](super::Queue::finish).
    RunBatch { texts: Vec<(EntryId, T)> },
}

/// A device that may take one more run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceRoom {
    /// Its number.
    pub device: usize,
    /// The most padded tokens of its batches.
    pub budget: usize,
    /// Runs that could begin besides, on this device or others.
    pub others: usize,
}

/// How much of the pending texts is taken at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// The most texts.
    pub texts: usize,
    /// The most tokens. A first text is taken however long it is.
    pub tokens: usize,
}
