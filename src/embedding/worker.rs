//! What an inference thread does: take work from the scheduler, tokenize or run the model, send the results.
//!
//! Inference is synchronous and busy for milliseconds at a time, so it never runs on the threads of the async runtime.
//! Tokenizing happens on the same threads, outside the scheduler's lock: at about 1 % of the cost it needs no stage of
//! its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failpoint;

use super::error::EmbeddingError;
use super::model::Tokens;
use super::name::ModelName;
use super::queue::WorkItem;
use super::scheduler::{PendingText, Scheduler, TokenizedText};

/// Works until the scheduler is shut down.
pub(crate) fn run_worker(scheduler: &Scheduler) {
    while let Some(work) = scheduler.next_work() {
        match work {
            WorkItem::Tokenize { priority, texts } => {
                let tokenized = texts
                    .into_iter()
                    .filter_map(|(flow, text)| Some((flow, tokenize(text)?)));
                scheduler.push_tokenized(priority, tokenized.collect());
            }
            WorkItem::RunBatch { texts } => {
                failpoint::reach("embedder");
                run_batch(&texts);
            }
        }
    }
}

/// Tokenizes one text. If that fails, sends the error to the text's flow.
fn tokenize(text: PendingText) -> Option<TokenizedText> {
    let model = &text.context.model;
    let tokenized = catch_panic(model.name(), || {
        model.tokenize(text.context.role, &text.text)
    });
    match tokenized {
        Ok(tokens) => Some(TokenizedText {
            id: text.id,
            tokens,
            context: text.context,
        }),
        Err(error) => {
            text.fail(error);
            None
        }
    }
}

/// Embeds a batch. If it fails as a whole, embeds its texts one by one, so that only the text at fault gets the error.
fn run_batch(texts: &[TokenizedText]) {
    let Some(first) = texts.first() else { return };
    // All texts of a batch have the same model: the queue pools texts by model.
    let model = first.context.model.clone();
    let tokens: Vec<&Tokens> = texts.iter().map(|text| &text.tokens).collect();
    match catch_panic(model.name(), || model.embed(&tokens)) {
        Ok(vectors) => texts
            .iter()
            .zip(vectors)
            .for_each(|(text, vector)| text.finish(vector)),
        Err(error) if texts.len() == 1 => first.finish(Err(error)),
        Err(error) => {
            tracing::warn!(
                model = %model.name(),
                %error,
                texts = texts.len(),
                "batch failed; retrying its texts one by one"
            );
            for text in texts {
                let alone = catch_panic(model.name(), || model.embed(&[&text.tokens])?.remove(0));
                text.finish(alone);
            }
        }
    }
}

/// Turns a panic into an error of the text at hand, so that the worker and the other jobs continue.
pub(crate) fn catch_panic<T>(
    model: &ModelName,
    work: impl FnOnce() -> Result<T, EmbeddingError>,
) -> Result<T, EmbeddingError> {
    // Unwind safe: models are immutable and results are local, so a panic leaves nothing half changed.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(EmbeddingError::Panicked {
            model: model.clone(),
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
