//! What an inference thread does: take work from the scheduler, tokenize or run the model, send the results.
//!
//! Inference is synchronous and busy for milliseconds at a time, so it never runs on the threads of the async runtime.
//! Tokenizing happens on the same threads, outside the scheduler's lock: at about 1 % of the cost it needs no stage of
//! its own.
//!
//! Batches for devices have threads of their own, which wait for the devices most of the time. They pass no gate: what they
//! do takes next to nothing from other users of the processors. The threads behind the gate tokenize for them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failpoint;

use super::loaded::{LoadedModel, Tokens};
use super::recovery::{Recovery, Vectors};
use crate::embedding::error::EmbeddingError;
use crate::embedding::flow_counters::{FlowCounters, each_once};
use crate::embedding::name::ModelName;
use crate::embedding::schedule::queue::{EntryId, WorkItem};
use crate::embedding::schedule::scheduler::{
    Computation, DeviceRun, EmbeddingWork, PendingText, Scheduler, TokenizedText,
};
use crate::embedding::yielding::{Gate, Throttle};

/// Works until the scheduler is shut down or the gate closed, as the thread with this number.
pub(crate) fn run_worker(scheduler: &Scheduler<LoadedModel>, gate: &Gate, number: usize) {
    let take = || scheduler.next_work();
    let run = |throttle: &Throttle, work| do_work(scheduler, throttle, work);
    gate.work(number, take, run, || scheduler.look_again());
}

/// Runs batches on devices until the scheduler is shut down.
pub(crate) fn run_device_worker(scheduler: &Scheduler<LoadedModel>, recovery: &Recovery) {
    while let Some(DeviceRun { mut run, texts }) = scheduler.next_run() {
        failpoint::reach("embedder");
        run_batch(scheduler, &texts, |model, tokens| {
            recovery.embed(model, &mut run, tokens)
        });
        // The device has room for the next one.
        drop(run);
        scheduler.batch_ended();
    }
}

fn do_work(scheduler: &Scheduler<LoadedModel>, throttle: &Throttle, work: EmbeddingWork) {
    match work {
        WorkItem::Tokenize { texts } => {
            let tokenized = texts
                .into_iter()
                .filter_map(|(entry, text)| Some((entry, tokenize(scheduler, entry, text)?)));
            scheduler.push_tokenized(tokenized.collect());
        }
        WorkItem::RunBatch { texts } => {
            failpoint::reach("embedder");
            // It may rest inside the model, where it holds no lock that others wait for.
            run_batch(scheduler, &texts, |model, tokens| {
                throttle.run(|| model.embed(model.base.devices.first(), tokens))
            });
            scheduler.batch_ended();
        }
    }
}

/// Tokenizes one text. If that fails, sends the error to those who asked for it.
fn tokenize(
    scheduler: &Scheduler<LoadedModel>,
    entry: EntryId,
    text: PendingText<LoadedModel>,
) -> Option<TokenizedText> {
    let tokenized = catch_panic(text.model.name(), || {
        text.model.tokenize(text.role, &text.text)
    });
    match tokenized {
        Ok(tokens) => Some(text.tokenized(tokens)),
        Err(error) => {
            scheduler.fail(entry, &error);
            None
        }
    }
}

/// Embeds a batch by `embed`. If it fails as a whole, embeds its texts one by one, so that only the text at fault gets the
/// error.
fn run_batch(
    scheduler: &Scheduler<LoadedModel>,
    texts: &[(EntryId, TokenizedText)],
    mut embed: impl FnMut(&LoadedModel, &[&Tokens]) -> Result<Vectors, EmbeddingError>,
) {
    let Some((first_entry, first)) = texts.first() else {
        return;
    };
    // All texts of a batch have the same model, and one task: the queue pools texts by both.
    let model = &*first.model;
    let tokens: Vec<&Tokens> = texts.iter().map(|(_, text)| &text.tokens).collect();
    let began = Instant::now();
    match catch_panic(model.name(), || embed(model, &tokens)) {
        Ok(vectors) => {
            let each_token = each_token(began.elapsed(), &tokens);
            let finished = texts.iter().zip(vectors).map(|((entry, text), vector)| {
                let share = each_token.mul_f64(text.tokens.len() as f64);
                finish(scheduler, *entry, text, vector, share)
            });
            let finished = each_once(finished.flatten().collect());
            finished.iter().for_each(|flow| flow.note_batch());
        }
        Err(error) if texts.len() == 1 => drop(scheduler.fail(*first_entry, &error)),
        Err(error @ EmbeddingError::ShutDown) => {
            let entries = texts.iter().map(|(entry, _)| *entry);
            entries.for_each(|entry| drop(scheduler.fail(entry, &error)));
        }
        Err(error) => {
            tracing::warn!(
                model = %model.name(),
                %error,
                texts = texts.len(),
                "batch failed; retrying its texts one by one"
            );
            for (entry, text) in texts {
                let began = Instant::now();
                let alone = catch_panic(model.name(), || embed(model, &[&text.tokens])?.remove(0));
                let counted = finish(scheduler, *entry, text, alone, began.elapsed());
                if let Some(flow) = counted {
                    flow.note_batch();
                }
            }
        }
    }
}

/// Sends the vector of a text, or why it has none, to those who asked for it. Returns the flow that it is counted for.
fn finish(
    scheduler: &Scheduler<LoadedModel>,
    entry: EntryId,
    text: &TokenizedText,
    vector: Result<Vec<f32>, EmbeddingError>,
    share: Duration,
) -> Option<Arc<FlowCounters>> {
    match vector {
        Ok(vector) => {
            let done = Computation {
                key: text.key,
                vector,
                is_truncated: text.tokens.is_truncated(),
                tokens: text.tokens.len(),
                share,
                cost: 0.0,
            };
            scheduler.finish(entry, done)
        }
        Err(error) => {
            scheduler.fail(entry, &error);
            None
        }
    }
}

/// The time of one token of a batch.
fn each_token(elapsed: Duration, texts: &[&Tokens]) -> Duration {
    let tokens: usize = texts.iter().map(|tokens| tokens.len()).sum();
    elapsed.div_f64(tokens.max(1) as f64)
}

/// Turns a panic into an error of the text at hand, so that the worker and the other jobs continue.
pub(crate) fn catch_panic<T>(
    model: &ModelName,
    work: impl FnOnce() -> Result<T, EmbeddingError>,
) -> Result<T, EmbeddingError> {
    // Unwind safe: models are immutable and results are local, so a panic leaves nothing half changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(EmbeddingError::Panicked {
            model: model.as_str().into(),
            reason: panic_message(&*panic),
        })
    })
}

/// The message of a panic: `panic!` carries a `&str` or, with arguments, a `String`.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_error_of_its_text() {
        let name: ModelName = ModelName::DEFAULT.parse().unwrap();
        let result: Result<(), _> = catch_panic(&name, || panic!("index {} out of range", 7));
        let error = result.unwrap_err();
        assert!(
            matches!(&error, EmbeddingError::Panicked { reason, .. } if reason == "index 7 out of range")
        );
        assert!(!error.is_transient());
    }
}
