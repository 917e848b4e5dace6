//! A plain text that every model has a vector for: it tells a wrong setting from a wrong text.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use tokio::time::timeout;

use super::error::{RemoteError, RemoteFailure};
use super::exchange::Ask;
use super::fleet::Fleet;
use super::options::RemoteOptions;
use super::verdict::configuration;
use crate::embedding::role::TextRole;

const PROBE_TEXT: &str = "The lantern is lit at dusk.";
/// Attempts of a first text.
const ATTEMPTS: usize = 2;

impl Fleet {
    /// Embeds a first text, with two attempts at most, so that a row that is wrong fails soon: the length of the vectors.
    ///
    /// # Errors
    ///
    /// Why the text has no vector.
    pub async fn probe(&self, options: &RemoteOptions) -> Result<usize, RemoteError> {
        let text = probe_text(options, TextRole::Document);
        let uncounted = AtomicU64::new(0);
        let inputs = [text.as_str()];
        let ask = Ask::new(options, TextRole::Document, &inputs, false, &uncounted);
        let mut failed = Vec::new();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let turn = self.turns.take(ask.tokens, &failed, Instant::now());
            let Ok(Some(turn)) = timeout(self.patience.probe, turn).await else {
                break;
            };
            let server = turn.server;
            let failure = match self.exchange(turn, &ask).await {
                Ok(answer) => return Ok(answer.dimensions()),
                Err(failure) => failure.error,
            };
            // If the model was replaced by another one, the next first text counts.
            if let RemoteFailure::Dimensions { .. } = failure.failure {
                self.memory.forget_dimensions(options);
            }
            let is_final = !failure.is_transient() && self.endpoints.len() == 1;
            last = Some(of_every_text(failure));
            if is_final {
                break;
            }
            if failed.len() + 1 < self.endpoints.len() {
                failed.push(server);
            }
        }
        Err(last.unwrap_or_else(|| self.trouble()))
    }

    /// Whether a server that refuses a text still accepts a plain one. Asks it once in a while only.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub(super) async fn check(
        &self,
        options: &RemoteOptions,
        role: TextRole,
        server: usize,
        sent: &AtomicU64,
    ) -> Result<(), RemoteError> {
        let _permit = self.checks.acquire().await.ok();
        let interval = self.patience.check_interval;
        if self.memory.has_accepted(options, server, interval) {
            return Ok(());
        }
        let text = probe_text(options, role);
        let ask = Ask::new(options, role, &[text.as_str()], false, sent);
        let servers = 0..self.endpoints.len();
        let others: Vec<_> = servers.filter(|other| *other != server).collect();
        let turn = self.turns.take(ask.tokens, &others, Instant::now()).await;
        let turn = turn.ok_or_else(|| self.trouble())?;
        match self.exchange(turn, &ask).await {
            Ok(_) => Ok(()),
            Err(failed) => Err(of_every_text(failed.error)),
        }
    }
}

fn probe_text(options: &RemoteOptions, role: TextRole) -> String {
    format!("{}{PROBE_TEXT}", options.prompt(role))
}

/// A refusal of the probe text is one of every text.
fn of_every_text(error: RemoteError) -> RemoteError {
    let failure = match error.failure {
        RemoteFailure::Text { status, words } | RemoteFailure::TooLong { status, words, .. } => {
            configuration(status, words)
        }
        RemoteFailure::Vector { flaw } => RemoteFailure::Garbled {
            reason: format!("the vector of a plain sentence {flaw}"),
        },
        other => other,
    };
    RemoteError { failure, ..error }
}
