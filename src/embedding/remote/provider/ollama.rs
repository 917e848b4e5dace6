//! Ollama's own `/api/embed`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::dialect::{Call, Facts, Parsed};
use super::embedding::Embedding;

/// Ollama documents no limit of a request (`docs/api.md`, "Generate Embeddings"); it runs a few at a time.
pub(super) const FACTS: Facts = Facts {
    name: "ollama",
    server: "http://localhost:11434",
    path: "api/embed",
    base_has_version: false,
    max_inputs: 2048,
    max_tokens: 1_000_000,
    batch: 32,
    batch_tokens: 16_384,
    in_flight: 4,
    input_types: None,
    cuts: true,
    base64: false,
    has_base64: false,
};

pub(super) fn request(call: &Call<'_>) -> Value {
    let mut body = json!({ "model": call.model, "input": call.inputs, "truncate": call.cut });
    if let Some(dimensions) = call.dimensions {
        body["dimensions"] = json!(dimensions);
    }
    body
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Embedding>,
    prompt_eval_count: Option<u64>,
}

pub(super) fn parse(body: &[u8]) -> serde_json::Result<Parsed> {
    let answer: Answer = serde_json::from_slice(body)?;
    let vectors = answer.embeddings.into_iter().map(|vector| (None, vector));
    Ok(Parsed {
        vectors: vectors.collect(),
        tokens: answer.prompt_eval_count,
    })
}
