//! One request, repeated until a server answers it or the texts themselves may be the cause.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::time::timeout;

use super::answer::{self, Answer};
use super::error::{RemoteError, RemoteFailure};
use super::fleet::Fleet;
use super::limits::retry_after;
use super::numbers::estimate_tokens;
use super::options::RemoteOptions;
use super::provider::Call;
use super::transport::{Reply, post};
use super::turns::{Outcome, Turn};
use super::verdict::{Verdict, judge};
use super::words;
use crate::backoff::Backoff;
use crate::embedding::role::TextRole;

/// Failures after which the texts may be the cause.
const MAX_SUSPICIONS: u32 = 3;
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
    texts: usize,
    body: Bytes,
}

/// Why a request has no answer.
pub(super) enum Trouble {
    /// No server of the fleet can answer it.
    Fleet(RemoteError),
    /// The texts may be the cause.
    Texts {
        server: usize,
        verdict: Verdict,
        error: RemoteError,
    },
}

/// Why one server did not answer.
pub(super) struct Failed {
    pub server: usize,
    pub verdict: Verdict,
    pub error: RemoteError,
}

impl<'a> Ask<'a> {
    /// Asks for the vectors of inputs; `cut` asks the provider to cut what is too long.
    pub(super) fn new(
        options: &'a RemoteOptions,
        role: TextRole,
        inputs: &[&str],
        cut: bool,
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
        }
    }
}

impl Fleet {
    /// Sends a request until it is answered. What passes is repeated: at another server at once, at the same one after a
    /// pause and with a permit.
    ///
    /// Cancellation safe.
    pub(super) async fn request(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let since = Instant::now();
        let mut tried = Tried::new(self, ask.options);
        loop {
            let _permit = match tried.needs_permit {
                true => self.retries.acquire().await.ok(),
                false => None,
            };
            let turn = self.turns.take(ask.tokens, &tried.except(), since).await;
            let Some(turn) = turn else {
                return Err(Trouble::Fleet(tried.last.unwrap_or_else(|| self.trouble())));
            };
            let failed = match self.hedged(turn, ask, &tried).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if let Some(pause) = tried.note(failed, ask.texts)? {
                if Instant::now() >= self.turns.deadline(since)
                    && let Some(last) = tried.last
                {
                    return Err(Trouble::Fleet(last));
                }
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Sends a request, and after a while a second one to another server if the options ask for it. The first vectors
    /// count.
    async fn hedged(
        &self,
        turn: Turn<'_>,
        ask: &Ask<'_>,
        tried: &Tried<'_>,
    ) -> Result<Answer, Failed> {
        let mut except = tried.except();
        except.push(turn.server);
        let mut first = pin!(self.exchange(turn, ask));
        let Some(pause) = ask.options.hedge_after else {
            return first.await;
        };
        if let Ok(ended) = timeout(pause, first.as_mut()).await {
            return ended;
        }
        let Ok(turn) = self.turns.try_take(ask.tokens, &except) else {
            return first.await;
        };
        let second = pin!(self.exchange(turn, ask));
        match select(first, second).await {
            Either::Left((Err(_), second)) => second.await,
            Either::Right((Err(_), first)) => first.await,
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }

    /// Sends a request once.
    pub(super) async fn exchange(&self, turn: Turn<'_>, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let server = turn.server;
        let endpoint = &self.endpoints[server];
        let dimensions = self.memory.dimensions(ask.options);
        let vector = VECTOR_BYTES + NUMBER_BYTES * dimensions.unwrap_or(MAX_DIMENSIONS);
        let max_bytes = ANSWER_BYTES + ask.texts * vector;
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
                turn.finish(Outcome::Vectors);
                self.memory
                    .learn_dimensions(ask.options, answer.dimensions());
                self.memory.learn_accepted(ask.options, server);
                Ok(answer)
            }
            Err((verdict, failure)) => {
                turn.finish(outcome(&verdict, &failure, ask.texts));
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
        (Verdict::Throttled | Verdict::Passing, failure) => Outcome::Failed(failure.to_string()),
        (Verdict::Unfit | Verdict::TooLong | Verdict::Refused, _) => Outcome::Answered,
    }
}

/// The servers that a request has been sent to in vain.
struct Tried<'a> {
    fleet: &'a Fleet,
    options: &'a RemoteOptions,
    /// Those that do not have the model.
    unfit: Vec<usize>,
    /// Those that failed in this round.
    failed: Vec<usize>,
    suspicions: u32,
    backoff: Backoff,
    needs_permit: bool,
    last: Option<RemoteError>,
}

impl<'a> Tried<'a> {
    fn new(fleet: &'a Fleet, options: &'a RemoteOptions) -> Self {
        let unfit = fleet.memory.unfit(options, Instant::now());
        // If no server has the model, one is asked whether that is still so.
        let unfit = if unfit.len() < fleet.endpoints.len() {
            unfit
        } else {
            Vec::new()
        };
        Self {
            fleet,
            options,
            unfit,
            failed: Vec::new(),
            suspicions: 0,
            backoff: Backoff::new(fleet.patience.first_pause, fleet.patience.max_pause),
            needs_permit: false,
            last: None,
        }
    }

    fn except(&self) -> Vec<usize> {
        self.unfit.iter().chain(&self.failed).copied().collect()
    }

    /// Decides what a failure means: a pause before the next attempt, if it needs one.
    fn note(&mut self, failed: Failed, texts: usize) -> Result<Option<Duration>, Trouble> {
        let Failed {
            server,
            verdict,
            error,
        } = failed;
        match verdict {
            Verdict::TooLong | Verdict::Refused => {
                return Err(Trouble::Texts {
                    server,
                    verdict,
                    error,
                });
            }
            Verdict::Unfit => {
                self.fleet.memory.learn_unfit(self.options, server);
                self.unfit.push(server);
                if self.unfit.len() >= self.fleet.endpoints.len() {
                    return Err(Trouble::Fleet(error));
                }
            }
            // Its pause is kept by the turns.
            Verdict::Throttled => {
                self.needs_permit = true;
                self.last = Some(error);
                return Ok(Some(Duration::ZERO));
            }
            Verdict::Passing => {
                if may_be_the_texts(&error.failure, texts) {
                    self.suspicions += 1;
                    if self.suspicions >= MAX_SUSPICIONS {
                        return Err(Trouble::Texts {
                            server,
                            verdict,
                            error,
                        });
                    }
                }
                self.failed.push(server);
                self.last = Some(error);
            }
        }
        if self.except().len() < self.fleet.endpoints.len() {
            return Ok(None);
        }
        self.failed.clear();
        self.needs_permit = true;
        Ok(Some(self.backoff.next_pause()))
    }
}

/// Whether the texts may be the cause of a failure that looks like one of the server.
fn may_be_the_texts(failure: &RemoteFailure, texts: usize) -> bool {
    match failure {
        RemoteFailure::Server { status, .. } => *status == 500,
        RemoteFailure::Garbled { .. } | RemoteFailure::Vector { .. } => true,
        // A smaller batch may be in time.
        RemoteFailure::Timeout { .. } => texts > 1,
        _ => false,
    }
}
