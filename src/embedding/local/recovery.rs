//! What a device can do and a processor need not: run out of memory, and be lost.
//!
//! Neither is the fault of a text. Without memory for a batch, its halves are run, and later batches are smaller. A device
//! that computes nothing any more, because its driver was reset or its hypervisor took it away, is an outage: the texts wait
//! while the session is made again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::base::ModelBase;
use super::loaded::{LoadedModel, Tokens};
use crate::backoff::Backoff;
use crate::embedding::error::EmbeddingError;
use crate::embedding::role::TextRole;
use crate::embedding::schedule::scheduler::lock;

/// Pauses between attempts to make a session again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A batch that has lost the device so often, each time after a plain text was computed, is at fault itself.
const MAX_LOSSES: u32 = 3;

/// The vectors of a batch, and why a text has none.
type Vectors = Vec<Result<Vec<f32>, EmbeddingError>>;

/// Embeds a batch on the device, as [`LoadedModel::embed`]. `pause` waits for so long, and returns whether the engine still
/// works.
///
/// # Errors
///
/// If a text of the batch is at fault, or a text alone is too long for the device's memory, or the engine ends.
pub(crate) fn embed(
    model: &LoadedModel,
    texts: &[&Tokens],
    pause: &dyn Fn(Duration) -> bool,
) -> Result<Vectors, EmbeddingError> {
    let base = &*model.base;
    let mut losses = 0;
    loop {
        let renewals = base.device.renewals.load(Ordering::Acquire);
        let error = match model.embed(texts) {
            Ok(vectors) => return Ok(vectors),
            Err(error) => error,
        };
        if error.is_out_of_memory() {
            let padded = model.padded_tokens(texts);
            let is_lower = lower(base, padded, &error);
            match texts.split_at(texts.len() / 2) {
                // The windows of a long text run together.
                ([], [text]) if is_lower && text.has_windows() => continue,
                ([], _) => return Err(out_of_memory(base, padded, &error)),
                (some, others) => {
                    let mut vectors = embed(model, some, pause)?;
                    vectors.extend(embed(model, others, pause)?);
                    return Ok(vectors);
                }
            }
        }
        losses += 1;
        if losses > MAX_LOSSES || !renewed(base, renewals, &error, pause)? {
            return Err(error);
        }
    }
}

/// Halves the size of batches, after one of so many padded tokens did not fit. Returns whether they have been larger.
fn lower(base: &ModelBase, padded: usize, error: &EmbeddingError) -> bool {
    let tokens = (padded / 2).max(1);
    let is_lower = base.device.lower_batch_tokens(tokens);
    if is_lower && !base.device.has_warned.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            model = %base.name,
            provider = %base.session.provider(),
            batch_tokens = tokens,
            %error,
            "the device has too little memory for a batch of {padded} tokens; batches are smaller from now on"
        );
    }
    is_lower
}

fn out_of_memory(base: &ModelBase, tokens: usize, error: &EmbeddingError) -> EmbeddingError {
    EmbeddingError::DeviceMemory {
        provider: base.session.provider().clone(),
        model: base.name.clone(),
        tokens,
        reason: error.to_string(),
    }
}

/// Makes the sessions again, if the device is lost. Returns whether the batch may be tried once more: otherwise the device
/// computes, and the batch is at fault.
///
/// # Errors
///
/// If the engine ends before the device computes again.
fn renewed(
    base: &ModelBase,
    before: u64,
    error: &EmbeddingError,
    pause: &dyn Fn(Duration) -> bool,
) -> Result<bool, EmbeddingError> {
    let device = &base.device;
    let _one_at_a_time = lock(&device.renewing);
    if device.renewals.load(Ordering::Acquire) != before {
        return Ok(true);
    }
    if computes(base) {
        return Ok(false);
    }
    if !pause(Duration::ZERO) {
        return Err(EmbeddingError::ShutDown);
    }
    let (model, provider) = (&base.name, base.session.provider());
    tracing::warn!(
        %model,
        %provider,
        %error,
        "the device does not compute any more; texts wait while the model is loaded on it again. If it is fine for other \
         programs, restart the daemon: some drivers give a process no device twice"
    );
    let since = Instant::now();
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        if !pause(backoff.next_pause()) {
            return Err(EmbeddingError::ShutDown);
        }
        match base.session.renew() {
            Ok(()) if computes(base) => break,
            Ok(()) => {}
            Err(error) => tracing::debug!(%model, %provider, %error, "the device is still lost"),
        }
    }
    device.renewals.fetch_add(1, Ordering::Release);
    tracing::info!(
        %model,
        %provider,
        waited_ms = since.elapsed().as_millis() as u64,
        "the device computes again"
    );
    Ok(true)
}

/// Whether the device computes a plain text.
fn computes(base: &ModelBase) -> bool {
    let ids = base.tokenizer.ids("probe").unwrap_or_default();
    let ids = if ids.is_empty() { vec![0] } else { ids };
    let text = base.plain(&ids, TextRole::Document);
    let kind = base.session.kind();
    base.pooled(&[text], kind, &base.files.pooling).is_ok()
}
