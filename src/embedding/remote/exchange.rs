//! One request to one server.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::answer::{self, Answer};
use super::error::{RemoteError, RemoteFailure};
use super::fleet::Fleet;
use super::limit_headers::retry_after;
use super::numbers::estimate_tokens;
use super::options::RemoteOptions;
use super::provider::Call;
use super::transport::{Reply, post};
use super::turns::{Change, Outcome, Turn};
use super::verdict::{Verdict, judge};
use super::words;
use crate::embedding::role::TextRole;

/// Bytes of one number of a vector in JSON, and of what is around a vector.
const NUMBER_BYTES: usize = 32;
const VECTOR_BYTES: usize = 1024;
/// And of what is around all vectors.
const ANSWER_BYTES: usize = 64 << 10;
/// The longest vectors that are read before their length is known.
const MAX_DIMENSIONS: usize = 16_384;

/// What is asked of a server.
pub(super) struct Ask<'a> {
    pub options: &'a RemoteOptions,
    pub tokens: usize,
    pub texts: usize,
    body: Bytes,
    /// How many times something was sent, for those who pay.
    sent: &'a AtomicU64,
}

/// Why one server did not answer.
pub(super) struct Failed {
    pub server: usize,
    pub verdict: Verdict,
    pub error: RemoteError,
}

impl<'a> Ask<'a> {
    /// Asks for the vectors of inputs; `cut` asks the provider to cut what is too long. Each request is counted in `sent`.
    pub(super) fn new(
        options: &'a RemoteOptions,
        role: TextRole,
        inputs: &[&str],
        cut: bool,
        sent: &'a AtomicU64,
    ) -> Self {
        let call = Call {
            model: options.model(),
            dimensions: options.dimensions,
            input_type: options.input_type(role),
            base64: options.base64,
            inputs,
            cut,
        };
        Self {
            options,
            tokens: inputs.iter().map(|text| estimate_tokens(text)).sum(),
            texts: inputs.len(),
            body: options.provider.request(&call).to_string().into(),
            sent,
        }
    }
}

impl Fleet {
    /// Sends a request once.
    pub(super) async fn exchange(&self, turn: Turn<'_>, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let server = turn.server;
        let endpoint = &self.endpoints[server];
        let dimensions = self.memory.dimensions(ask.options);
        let vector = VECTOR_BYTES + NUMBER_BYTES * dimensions.unwrap_or(MAX_DIMENSIONS);
        let max_bytes = ANSWER_BYTES + ask.texts * vector;
        ask.sent.fetch_add(1, Ordering::Relaxed);
        let reply = post(
            &endpoint.client,
            &endpoint.url,
            ask.options,
            ask.body.clone(),
            max_bytes,
        );
        let result = match reply.await {
            Ok(reply) => {
                self.turns.observe(server, &reply.headers);
                understand(ask, &reply, dimensions)
            }
            Err(failure) => Err((Verdict::Passing, failure)),
        };
        match result {
            Ok(answer) => {
                self.tell(server, turn.finish(Outcome::Vectors));
                self.memory
                    .learn_dimensions(ask.options, answer.dimensions());
                self.memory.learn_accepted(ask.options, server);
                Ok(answer)
            }
            Err((verdict, failure)) => {
                self.tell(server, turn.finish(outcome(&verdict, &failure, ask.texts)));
                let error = self.error(server, failure);
                Err(Failed {
                    server,
                    verdict,
                    error,
                })
            }
        }
    }
}

impl Fleet {
    /// Says that a server is left out, or is back. Where others do its work, nothing else tells.
    fn tell(&self, server: usize, change: Option<Change>) {
        let name = &self.endpoints[server].name;
        match change {
            Some(Change::LeftOut(why)) => tracing::warn!("{name} is left out for now: {why}"),
            Some(Change::TakenAgain) => tracing::info!("{name} embeds texts again"),
            None => {}
        }
    }
}

fn understand(
    ask: &Ask<'_>,
    reply: &Reply,
    dimensions: Option<usize>,
) -> Result<Answer, (Verdict, RemoteFailure)> {
    if !(200..300).contains(&reply.status) {
        let words = words::read(&reply.body, ask.options.key());
        return Err(judge(reply.status, &words, retry_after(&reply.headers)));
    }
    let answer = answer::read(ask.options.provider, &reply.body, ask.texts, dimensions);
    answer.map_err(|failure| match failure {
        RemoteFailure::Dimensions { .. } => (Verdict::Unfit, failure),
        failure => (Verdict::Passing, failure),
    })
}

fn outcome(verdict: &Verdict, failure: &RemoteFailure, texts: usize) -> Outcome {
    match (verdict, failure) {
        (Verdict::Throttled, RemoteFailure::Throttled { retry_after, .. }) => {
            Outcome::Throttled(*retry_after)
        }
        // One text may be the cause of that.
        (_, RemoteFailure::Vector { .. }) if texts == 1 => Outcome::Answered,
        (Verdict::Throttled | Verdict::Passing, failure) => Outcome::Failed(failure.clone()),
        (Verdict::Unfit | Verdict::TooLong | Verdict::Refused, _) => Outcome::Answered,
    }
}
