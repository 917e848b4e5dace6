//! What can go wrong between a text and a server elsewhere.
//!
//! Each message names the provider and the server, the cause, where there are any the server's own words, and the remedy.
//! None has a key, a header or a query string.

use std::time::Duration;

/// A server elsewhere did not embed a text. Cheap to clone, because one failed batch is reported for many texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{server}: {failure}")]
pub struct RemoteError {
    /// The provider and the host, such as `openai at api.openai.com`.
    pub server: String,
    /// What went wrong.
    pub failure: RemoteFailure,
}

/// What went wrong at a server elsewhere. Each message is a cause and a remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteFailure {
    /// HTTPS cannot be used on this machine.
    #[error("HTTPS cannot be set up ({reason}); check SSL_CERT_FILE and SSL_CERT_DIR")]
    Setup {
        /// What the library says.
        reason: String,
    },
    /// There was no connection, or it ended before the answer.
    #[error("no answer ({reason}); check base_url, the server and the network")]
    Unreachable {
        /// The innermost error.
        reason: String,
    },
    /// The answer did not come in time.
    #[error(
        "no answer within {} s; check the server, or set timeout higher or max_batch lower in runtime_params",
        .timeout.as_secs_f32()
    )]
    Timeout {
        /// `timeout` of `runtime_params`.
        timeout: Duration,
    },
    /// Too many requests or tokens for now.
    #[error(
        "too many requests for now (status {status}): {words}; it is tried again when the limit allows"
    )]
    Throttled {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
        /// What the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// The server has a failure of its own.
    #[error("the server failed (status {status}): {words}; it is tried again")]
    Server {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
    },
    /// The answer is not what was asked for.
    #[error("the answer is unusable: {reason}; check that base_url is a server of this kind")]
    Garbled {
        /// What is wrong with it.
        reason: String,
    },
    /// The vectors have another length than they should.
    #[error("the vectors have {found} dimensions instead of {expected}; {remedy}")]
    Dimensions {
        /// The length that they should have.
        expected: usize,
        /// The length that they have.
        found: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// The key is missing, wrong, expired, or may not do this.
    #[error("the key is refused (status {status}): {words}; {remedy}")]
    Key {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The account has nothing left to spend.
    #[error(
        "the account may not spend more (status {status}): {words}; raise its limit or add credit there"
    )]
    Quota {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
    },
    /// The server refuses every text: the address, the model or another setting is wrong.
    #[error("the request is refused (status {status}): {words}; {remedy}")]
    Configuration {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
        /// What to do.
        remedy: String,
    },
    /// The server refuses this text.
    #[error("the text is refused (status {status}): {words}; change the text, or set it to NULL")]
    Text {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
    },
    /// The text is longer than the model allows, and may not be cut.
    #[error("the text is too long for the model (status {status}): {words}; {remedy}")]
    TooLong {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        words: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The vector of this text is none.
    #[error("the vector of this text {flaw}; it was discarded; change the text, or set it to NULL")]
    Vector {
        /// Infinite, not a number, or zero.
        flaw: &'static str,
    },
}

impl RemoteError {
    /// Whether the same request may succeed later without a person's intervention.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use RemoteFailure as F;
        match self.failure {
            F::Unreachable { .. } | F::Timeout { .. } | F::Throttled { .. } => true,
            F::Server { .. } | F::Garbled { .. } => true,
            F::Setup { .. } | F::Dimensions { .. } | F::Key { .. } | F::Quota { .. } => false,
            F::Configuration { .. } | F::Text { .. } | F::TooLong { .. } | F::Vector { .. } => {
                false
            }
        }
    }

    /// Whether the service refuses the key or wants to be paid. The same request succeeds once a person has seen to it.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.failure,
            RemoteFailure::Key { .. } | RemoteFailure::Quota { .. }
        )
    }

    /// Whether the text itself is at fault, so that other texts can still be embedded.
    #[must_use]
    pub fn concerns_one_text(&self) -> bool {
        matches!(
            self.failure,
            RemoteFailure::Text { .. }
                | RemoteFailure::TooLong { .. }
                | RemoteFailure::Vector { .. }
        )
    }
}
