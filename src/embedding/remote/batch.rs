//! The texts of one call: sent together, and in ever smaller parts where a server refuses them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::error::{RemoteError, RemoteFailure};
use super::exchange::Ask;
use super::fleet::Fleet;
use super::numbers::estimate_tokens;
use super::options::RemoteOptions;
use super::parts::{parts, shares};
use super::shorten::{allowed_inputs, shorten};
use super::tried::Trouble;
use super::verdict::Verdict;
use crate::backoff::Backoff;
use crate::embedding::role::TextRole;

/// A text's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteVector {
    /// The vector; finite, and not zero.
    pub vector: Vec<f32>,
    /// Whether the end of the text did not count.
    pub is_truncated: bool,
    /// Tokens, as the provider counted them, or estimated where it does not say.
    pub tokens: u64,
}

impl Fleet {
    /// Embeds texts: one result a text, in order. Repeats what passes, at other servers first; divides a batch that is
    /// refused until it is known which text is at fault.
    ///
    /// Cancellation safe: a dropped call drops its requests.
    ///
    /// # Errors
    ///
    /// A transient one if nothing of the fleet has succeeded for about a minute, other than for pauses that the provider
    /// asked for. A permanent one if every text would be refused.
    pub async fn embed_each(
        &self,
        options: &RemoteOptions,
        role: TextRole,
        texts: &[Arc<str>],
    ) -> Result<Vec<Result<RemoteVector, RemoteError>>, RemoteError> {
        self.embed_counting(options, role, texts, &AtomicU64::new(0))
            .await
    }

    /// As [`embed_each`](Self::embed_each), and adds the requests to `sent`, those that failed too.
    pub(super) async fn embed_counting(
        &self,
        options: &RemoteOptions,
        role: TextRole,
        texts: &[Arc<str>],
        sent: &AtomicU64,
    ) -> Result<Vec<Result<RemoteVector, RemoteError>>, RemoteError> {
        Batch::new(self, options, role, texts, sent).run().await
    }
}

/// The texts of one call, and what became of them so far.
struct Batch<'a> {
    fleet: &'a Fleet,
    options: &'a RemoteOptions,
    role: TextRole,
    inputs: Vec<Input>,
    results: Vec<Option<Result<RemoteVector, RemoteError>>>,
    /// Parts that are still to be sent, by the places of their texts.
    parts: Vec<Vec<usize>>,
    sent: &'a AtomicU64,
    since: Instant,
    backoff: Backoff,
}

/// What is sent for a text.
struct Input {
    /// The prompt and the text.
    text: String,
    is_truncated: bool,
    /// Whether the provider is asked to cut it.
    is_cut_there: bool,
}

impl<'a> Batch<'a> {
    fn new(
        fleet: &'a Fleet,
        options: &'a RemoteOptions,
        role: TextRole,
        texts: &[Arc<str>],
        sent: &'a AtomicU64,
    ) -> Self {
        let prompt = options.prompt(role);
        let input = |text: &Arc<str>| Input {
            text: format!("{prompt}{text}"),
            is_truncated: false,
            is_cut_there: false,
        };
        let inputs: Vec<_> = texts.iter().map(input).collect();
        let tokens: Vec<_> = inputs
            .iter()
            .map(|input| estimate_tokens(&input.text))
            .collect();
        let max_inputs = options.max_batch().min(fleet.memory.max_inputs(options));
        let max_tokens = options
            .max_batch_tokens()
            .min(fleet.memory.max_tokens(options));
        Self {
            fleet,
            options,
            role,
            results: inputs.iter().map(|_| None).collect(),
            parts: parts(&tokens, max_inputs, max_tokens),
            inputs,
            sent,
            since: Instant::now(),
            backoff: Backoff::new(fleet.patience.first_pause, fleet.patience.max_pause),
        }
    }

    /// Sends everything. One result a text.
    async fn run(mut self) -> Result<Vec<Result<RemoteVector, RemoteError>>, RemoteError> {
        while let Some(part) = self.parts.pop() {
            self.send(part).await?;
        }
        // Every text is in a part until it has a result.
        Ok(self.results.into_iter().flatten().collect())
    }

    async fn send(&mut self, part: Vec<usize>) -> Result<(), RemoteError> {
        let inputs: Vec<&str> = part
            .iter()
            .map(|text| self.inputs[*text].text.as_str())
            .collect();
        let cut = part.len() == 1 && self.inputs[part[0]].is_cut_there;
        let ask = Ask::new(self.options, self.role, &inputs, cut, self.sent);
        let answer = match self.fleet.request(&ask).await {
            Ok(answer) => answer,
            Err(Trouble::Fleet(error)) => return Err(error),
            Err(Trouble::Texts {
                server,
                verdict,
                error,
            }) => {
                return match part[..] {
                    [text] => self.refused(text, server, verdict, error).await,
                    _ => {
                        self.divide(part, &verdict, &error.failure);
                        Ok(())
                    }
                };
            }
        };
        let estimates: Vec<_> = inputs
            .iter()
            .map(|text| estimate_tokens(text) as u64)
            .collect();
        let tokens = shares(answer.tokens, &estimates);
        for ((text, vector), tokens) in part.into_iter().zip(answer.vectors).zip(tokens) {
            match vector {
                Ok(vector) => {
                    self.results[text] = Some(Ok(RemoteVector {
                        vector,
                        is_truncated: self.inputs[text].is_truncated,
                        tokens,
                    }));
                }
                // Once more, alone: then it is known whether the text is at fault.
                Err(_) => self.parts.push(vec![text]),
            }
        }
        Ok(())
    }

    /// Divides a part of several texts that was refused.
    fn divide(&mut self, part: Vec<usize>, verdict: &Verdict, failure: &RemoteFailure) {
        if let RemoteFailure::Text { words, .. } = failure
            && let Some(max) = allowed_inputs(words, part.len())
        {
            self.fleet.memory.learn_max_inputs(self.options, max);
            self.parts.extend(part.chunks(max).map(<[usize]>::to_vec));
            return;
        }
        // A proxy says only that the body is too large.
        if let RemoteFailure::Text { status: 413, .. } = failure {
            let tokens = |text: &usize| estimate_tokens(&self.inputs[*text].text);
            let tokens: usize = part.iter().map(tokens).sum();
            self.fleet.memory.learn_max_tokens(self.options, tokens / 2);
        }
        let halves = || {
            let (one, other) = part.split_at(part.len() / 2);
            (one.to_vec(), other.to_vec())
        };
        let (one, other) = match verdict {
            // The long ones are at fault, and the others need not be sent again and again with them.
            Verdict::TooLong => {
                let length = |text: &usize| self.inputs[*text].text.len();
                let longest = part.iter().map(length).max().unwrap_or_default();
                let (long, short): (Vec<_>, Vec<_>) =
                    part.iter().partition(|text| length(text) > longest / 2);
                if short.is_empty() {
                    halves()
                } else {
                    (short, long)
                }
            }
            _ => halves(),
        };
        self.parts.extend([one, other]);
    }

    /// One text alone was refused: cut it, or find out whether it is at fault.
    async fn refused(
        &mut self,
        text: usize,
        server: usize,
        verdict: Verdict,
        error: RemoteError,
    ) -> Result<(), RemoteError> {
        if verdict == Verdict::TooLong && self.options.cuts && self.cut(text, &error.failure) {
            self.parts.push(vec![text]);
            return Ok(());
        }
        let checked = self.fleet.check(self.options, self.role, server, self.sent);
        match checked.await {
            Ok(()) => self.results[text] = Some(Err(of_text(error))),
            Err(checked) => {
                self.wait(server, checked).await?;
                self.parts.push(vec![text]);
            }
        }
        Ok(())
    }

    /// Whether the text is shorter now than when it was refused.
    fn cut(&mut self, text: usize, failure: &RemoteFailure) -> bool {
        let input = &mut self.inputs[text];
        input.is_truncated = true;
        if self.options.provider.facts().cuts && !input.is_cut_there {
            input.is_cut_there = true;
            return true;
        }
        let RemoteFailure::TooLong { words, .. } = failure else {
            return false;
        };
        shorten(&mut input.text, words)
    }

    /// The server does not accept a plain text either: wait for it, or for another one.
    async fn wait(&mut self, server: usize, error: RemoteError) -> Result<(), RemoteError> {
        if !error.is_transient() {
            self.fleet.memory.learn_unfit(self.options, server);
            let unfit = self.fleet.memory.unfit(self.options, Instant::now());
            return match unfit.len() < self.fleet.endpoints.len() {
                true => Ok(()),
                false => Err(error),
            };
        }
        if Instant::now() >= self.fleet.turns.deadline(self.since) {
            return Err(error);
        }
        self.backoff.wait().await;
        Ok(())
    }
}

/// The server accepts other texts, so this one is at fault.
fn of_text(error: RemoteError) -> RemoteError {
    let failure = match error.failure {
        RemoteFailure::Server { status, words } => RemoteFailure::Text { status, words },
        RemoteFailure::Garbled { reason } => RemoteFailure::Text {
            status: 200,
            words: reason,
        },
        other => other,
    };
    RemoteError { failure, ..error }
}
