//! How a stub behaves: always, or for one request.

use std::time::Duration;

use super::embed::vector_of;

/// How a stub answers every request that the script says nothing about.
#[derive(Debug, Clone)]
pub struct Behavior {
    /// The length of the vectors, unless a request asks for another one.
    pub dimensions: usize,
    /// The vector of a text, by the model, the text and the length.
    pub vector: fn(&str, &str, usize) -> Vec<f32>,
    /// The time of a request.
    pub latency: Duration,
    /// And for each token of it.
    pub latency_per_token: Duration,
    /// Requests that are computed at the same time; others wait. 0: any number.
    pub concurrency: usize,
    /// Requests at the same time above which they are answered with 429. 0: none.
    pub throttle_above: usize,
    /// `Retry-After` of these answers, in milliseconds (as `retry-after-ms`).
    pub retry_after_ms: Option<u64>,
    /// The share of requests that are answered with 500, by a fixed sequence.
    pub failure_rate: f64,
    /// Texts of a request above which it is answered with 413, in the words of text-embeddings-inference.
    pub max_inputs: usize,
    /// Tokens of a text above which it is too long, in the words of the provider. A token is a word.
    pub max_text_tokens: usize,
    /// A text that has this in it is refused with 400.
    pub refuse: Option<String>,
    /// A text that has this in it breaks the request with 500.
    pub crash: Option<String>,
    /// A text that has this in it gets a vector with NaN.
    pub nan: Option<String>,
    /// The bearer token that every request must have; others get 401.
    pub key: Option<String>,
    /// The only model that is known; others get 404.
    pub model: Option<String>,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            dimensions: 8,
            vector: |_, text, dimensions| vector_of(text, dimensions),
            latency: Duration::ZERO,
            latency_per_token: Duration::ZERO,
            concurrency: 0,
            throttle_above: 0,
            retry_after_ms: None,
            failure_rate: 0.0,
            max_inputs: usize::MAX,
            max_text_tokens: usize::MAX,
            refuse: None,
            crash: None,
            nan: None,
            key: None,
            model: None,
        }
    }
}

/// What a stub does with one request.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers as it should.
    Answer,
    /// Answers with this status, these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Answers as it should, after this time.
    Delay(Duration),
    /// Closes the connection without an answer.
    Close,
    /// Never answers.
    Hang,
    /// Answers as it should, but closes the connection after so many bytes of the body.
    CutAfter(usize),
    /// Says that the body is JSON and sends half of it, as a whole body.
    HalfJson,
    /// Sends a body without an end.
    Endless,
    /// Has one vector too few.
    TooFew,
    /// Has one vector too many.
    TooMany,
    /// Has the vectors from the last to the first, with their indices.
    Reversed,
    /// Has the index 0 for every vector.
    SameIndex,
    /// Has indices from 1 on.
    ShiftedIndex,
    /// Has vectors of this length.
    Dimensions(usize),
    /// Has vectors of this number, which JSON may not have a word for.
    Numbers(&'static str),
}

impl Act {
    /// An answer with this status and this message, in OpenAI's shape.
    pub fn error(status: u16, message: &str) -> Self {
        let body = serde_json::json!({ "error": { "message": message } });
        Self::Status(status, Vec::new(), body.to_string())
    }

    /// 429, with the time to wait in milliseconds if there is one.
    pub fn throttle(retry_after_ms: Option<u64>) -> Self {
        let header = retry_after_ms.map(|ms| ("retry-after-ms", ms.to_string()));
        let body = r#"{"error": {"message": "Rate limit reached"}}"#;
        Self::Status(429, header.into_iter().collect(), body.into())
    }
}
