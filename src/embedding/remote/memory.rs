//! What a fleet has learned about a model: the length of its vectors, how many texts a request may have, and which servers
//! do not have it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::options::RemoteOptions;

/// For how long a server that refuses a model is not asked for it, if others are there.
const UNFIT_FOR: Duration = Duration::from_secs(30);

/// What is known of each model.
#[derive(Default)]
pub(super) struct Memory(Mutex<HashMap<ModelKey, Known>>);

/// The model's name and the length of its vectors: what a server knows a model by.
type ModelKey = (String, Option<usize>);

#[derive(Default)]
struct Known {
    dimensions: Option<usize>,
    max_inputs: Option<usize>,
    max_tokens: Option<usize>,
    unfit: HashMap<usize, Instant>,
    accepted: HashMap<usize, Instant>,
}

impl Memory {
    /// The length of the vectors, if it is known: by the row, by the caller, or by the first answer.
    pub(super) fn dimensions(&self, options: &RemoteOptions) -> Option<usize> {
        let of_row = options.dimensions.map(usize::from);
        of_row
            .or(options.expected)
            .or_else(|| self.read(options, |known| known.dimensions))
    }

    pub(super) fn learn_dimensions(&self, options: &RemoteOptions, dimensions: usize) {
        self.change(options, |known| {
            known.dimensions.get_or_insert(dimensions);
        });
    }

    /// Forgets the length of the vectors: the model has been replaced.
    pub(super) fn forget_dimensions(&self, options: &RemoteOptions) {
        self.change(options, |known| known.dimensions = None);
    }

    /// The most texts of a request, as far as a server has said so.
    pub(super) fn max_inputs(&self, options: &RemoteOptions) -> usize {
        self.read(options, |known| known.max_inputs)
            .unwrap_or(usize::MAX)
    }

    pub(super) fn learn_max_inputs(&self, options: &RemoteOptions, max: usize) {
        self.change(options, |known| {
            known.max_inputs = Some(known.max_inputs.map_or(max, |known| known.min(max)));
        });
    }

    /// The most tokens of a request, as far as one was too large.
    pub(super) fn max_tokens(&self, options: &RemoteOptions) -> usize {
        self.read(options, |known| known.max_tokens)
            .unwrap_or(usize::MAX)
    }

    pub(super) fn learn_max_tokens(&self, options: &RemoteOptions, max: usize) {
        self.change(options, |known| {
            known.max_tokens = Some(known.max_tokens.map_or(max, |known| known.min(max)));
        });
    }

    /// Servers that have refused the model a short while ago.
    pub(super) fn unfit(&self, options: &RemoteOptions, now: Instant) -> Vec<usize> {
        self.read(options, |known| {
            let recent = known
                .unfit
                .iter()
                .filter(|(_, seen)| now - **seen < UNFIT_FOR);
            Some(recent.map(|(server, _)| *server).collect())
        })
        .unwrap_or_default()
    }

    pub(super) fn learn_unfit(&self, options: &RemoteOptions, server: usize) {
        self.change(options, |known| {
            known.unfit.insert(server, Instant::now());
            known.accepted.remove(&server);
        });
    }

    /// Whether the server has accepted the probe text, or another one, within this time.
    pub(super) fn has_accepted(
        &self,
        options: &RemoteOptions,
        server: usize,
        within: Duration,
    ) -> bool {
        let seen = self.read(options, |known| known.accepted.get(&server).copied());
        seen.is_some_and(|seen| seen.elapsed() < within)
    }

    pub(super) fn learn_accepted(&self, options: &RemoteOptions, server: usize) {
        self.change(options, |known| {
            known.accepted.insert(server, Instant::now());
            known.unfit.remove(&server);
        });
    }

    fn read<T>(
        &self,
        options: &RemoteOptions,
        read: impl FnOnce(&Known) -> Option<T>,
    ) -> Option<T> {
        self.lock().get(&key(options)).and_then(read)
    }

    fn change(&self, options: &RemoteOptions, change: impl FnOnce(&mut Known)) {
        change(self.lock().entry(key(options)).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelKey, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(options: &RemoteOptions) -> ModelKey {
    (
        options.model().to_owned(),
        options.dimensions.map(usize::from),
    )
}
