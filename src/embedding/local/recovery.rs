//! What a device can do and a processor need not: run out of memory, and be lost.
//!
//! Neither is the fault of a text. Without memory for a batch, its halves are run, and later batches of that device are
//! smaller. A device that computes nothing any more, because its driver was reset or its hypervisor took it away, is an
//! outage: its batches are given to the model's other devices, or wait where there is none, while a thread makes its
//! sessions again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::assignment::Assignment;
use super::base::ModelBase;
use super::device::Device;
use super::loaded::{LoadedModel, Tokens};
use crate::backoff::Backoff;
use crate::embedding::error::EmbeddingError;
use crate::embedding::role::TextRole;
use crate::embedding::schedule::scheduler::{Scheduler, lock};
use crate::embedding::yielding::Gate;

/// Pauses between attempts to make a session again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A batch that has lost a device so often, each time after a plain text was computed, is at fault itself.
const MAX_LOSSES: u32 = 3;
/// How often a batch that no device can run looks for one.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The vectors of a batch, and why a text has none.
pub(crate) type Vectors = Vec<Result<Vec<f32>, EmbeddingError>>;

/// Runs batches on devices, and makes lost devices usable again.
pub(crate) struct Recovery {
    scheduler: Arc<Scheduler<LoadedModel>>,
    gate: Arc<Gate>,
    /// Those that make the sessions of a device again, one for each lost one.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Recovery {
    /// For the devices that this scheduler has work for, until the gate is closed.
    pub(crate) fn new(scheduler: Arc<Scheduler<LoadedModel>>, gate: Arc<Gate>) -> Self {
        Self {
            scheduler,
            gate,
            threads: Mutex::default(),
        }
    }

    /// Embeds a batch on the device that it was given to, as [`LoadedModel::embed`], or on another one if that is lost.
    ///
    /// # Errors
    ///
    /// If a text of the batch is at fault, or a text alone is too long for the device's memory, or the engine ends.
    pub(crate) fn embed(
        &self,
        model: &LoadedModel,
        run: &mut Assignment,
        texts: &[&Tokens],
    ) -> Result<Vectors, EmbeddingError> {
        let mut losses = 0;
        loop {
            let device = run.device();
            let renewals = device.renewals();
            let error = match model.embed(device, texts) {
                Ok(vectors) => {
                    device.note_batch();
                    return Ok(vectors);
                }
                Err(error) => error,
            };
            if error.is_out_of_memory() {
                let padded = LoadedModel::padded_tokens(device, texts);
                let is_lower = lower(&model.base, device, padded, &error);
                match texts.split_at(texts.len() / 2) {
                    // The windows of a long text run together.
                    ([], [text]) if is_lower && text.has_windows() => continue,
                    ([], _) => return Err(out_of_memory(&model.base, device, padded, &error)),
                    (some, others) => {
                        let mut vectors = self.embed(model, run, some)?;
                        vectors.extend(self.embed(model, run, others)?);
                        return Ok(vectors);
                    }
                }
            }
            losses += 1;
            if losses > MAX_LOSSES || !self.was_lost(run, renewals, &error) {
                return Err(error);
            }
            *run = self.another(run.base())?;
        }
    }

    /// Gives a run to the device that computes and has the fewest, as soon as there is one.
    fn another(&self, base: &Arc<ModelBase>) -> Result<Assignment, EmbeddingError> {
        loop {
            if let Some(number) = base.devices.least_loaded() {
                return Ok(Assignment::new(base.clone(), number));
            }
            if !self.gate.pause(LOOK_INTERVAL) {
                return Err(EmbeddingError::ShutDown);
            }
        }
    }

    /// Whether the device of this run was lost, and had been so often before it began, or is. Otherwise it computes, and the
    /// batch is at fault. The first who finds out has its sessions made again.
    fn was_lost(&self, run: &Assignment, before: u64, error: &EmbeddingError) -> bool {
        let (base, device) = (run.base(), run.device());
        let _one_at_a_time = lock(&device.examining);
        if device.is_lost() || device.renewals() != before {
            return true;
        }
        if probe(base, device).is_ok() {
            return false;
        }
        device.note_loss(error);
        if !self.gate.pause(Duration::ZERO) {
            return true;
        }
        let others = base.devices.iter().filter(|device| !device.is_lost());
        tracing::warn!(
            model = %base.name,
            provider = %device.session.provider(),
            %error,
            other_devices = others.count(),
            "the device does not compute any more; its texts are for the other devices, or wait, while the model is loaded on \
             it again. If it is fine for other programs, restart the daemon: some drivers give a process no device twice"
        );
        self.begin_renewal(base, run.number());
        true
    }

    /// Makes the sessions of a device again, on a thread of its own.
    fn begin_renewal(&self, base: &Arc<ModelBase>, number: usize) {
        let renew = || {
            let (base, gate) = (Arc::downgrade(base), self.gate.clone());
            let scheduler = self.scheduler.clone();
            move || renew(&base, number, &gate, &scheduler)
        };
        let thread = thread::Builder::new().name("embed-renew".into());
        match thread.spawn(renew()) {
            Ok(thread) => {
                let mut threads = lock(&self.threads);
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
            Err(error) => {
                tracing::debug!(%error, "a lost device gets no thread of its own");
                renew()();
            }
        }
    }

    /// Waits for the threads that make sessions again, after the gate was closed.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // It has nothing to report.
            let _ = thread.join();
        }
    }
}

/// Makes the sessions of a device again and again until it computes. Ends early if the model is not used any more, or the
/// gate is closed.
fn renew(base: &Weak<ModelBase>, number: usize, gate: &Gate, scheduler: &Scheduler<LoadedModel>) {
    let since = Instant::now();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        if !gate.pause(backoff.next_pause()) {
            return;
        }
        let Some(base) = base.upgrade() else {
            return;
        };
        let device = base.devices.at(number);
        let (model, provider) = (&base.name, device.session.provider());
        match device.session.renew().and_then(|()| probe(&base, device)) {
            Ok(()) => {
                device.note_return();
                scheduler.device_returned();
                tracing::info!(
                    %model,
                    %provider,
                    waited_ms = since.elapsed().as_millis() as u64,
                    "the device computes again"
                );
                return;
            }
            Err(error) => {
                device.note_loss(&error);
                tracing::debug!(%model, %provider, %error, "the device is still lost");
            }
        }
    }
}

/// Halves the size of a device's batches, after one of so many padded tokens did not fit. Returns whether they have been
/// larger.
fn lower(base: &ModelBase, device: &Device, padded: usize, error: &EmbeddingError) -> bool {
    let tokens = (padded / 2).max(1);
    let is_lower = device.lower_batch_tokens(tokens);
    if is_lower && !device.has_warned.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            model = %base.name,
            provider = %device.session.provider(),
            batch_tokens = tokens,
            %error,
            "the device has too little memory for a batch of {padded} tokens; batches are smaller from now on"
        );
    }
    is_lower
}

fn out_of_memory(
    base: &ModelBase,
    device: &Device,
    tokens: usize,
    error: &EmbeddingError,
) -> EmbeddingError {
    EmbeddingError::DeviceMemory {
        provider: device.session.provider().clone(),
        model: base.name.clone(),
        tokens,
        reason: error.to_string(),
    }
}

/// Has the device compute a plain text.
fn probe(base: &ModelBase, device: &Device) -> Result<(), EmbeddingError> {
    let ids = base.tokenizer.ids("probe").unwrap_or_default();
    let ids = if ids.is_empty() { vec![0] } else { ids };
    let text = base.plain(&ids, TextRole::Document);
    let session = &device.session;
    base.pooled(session, &[text], session.kind(), &base.files.pooling)
        .map(drop)
}
