//! OpenAI, and what speaks its `/v1/embeddings`: Azure, vLLM, text-embeddings-inference, another `lantern-cli serve`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::dialect::{Call, Facts, Parsed};
use super::embedding::Embedding;

/// The limits are those of the API reference ("Create embeddings"): 2048 inputs, 300,000 tokens over all inputs. The
/// defaults suit servers of one's own too: text-embeddings-inference takes 32 texts and 16,384 tokens
/// (`--max-client-batch-size`, `--max-batch-tokens`), and one that takes less says so, which is remembered.
pub(super) const FACTS: Facts = Facts {
    name: "openai",
    server: "https://api.openai.com/v1",
    path: "v1/embeddings",
    base_has_version: true,
    max_inputs: 2048,
    max_tokens: 300_000,
    batch: 256,
    batch_tokens: 100_000,
    in_flight: 8,
    input_types: None,
    cuts: false,
    base64: true,
    has_base64: true,
};

pub(super) fn request(call: &Call<'_>) -> Value {
    let mut body = json!({
        "model": call.model,
        "input": call.inputs,
        "encoding_format": if call.base64 { "base64" } else { "float" },
    });
    if let Some(dimensions) = call.dimensions {
        body["dimensions"] = json!(dimensions);
    }
    // Not OpenAI's own, but what servers with two kinds of prompts take; our own among them.
    if let Some(input_type) = call.input_type {
        body["input_type"] = json!(input_type);
    }
    body
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Embedding,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

/// The answers of OpenAI and of Voyage.
pub(super) fn parse(body: &[u8]) -> serde_json::Result<Parsed> {
    let answer: Answer = serde_json::from_slice(body)?;
    let vectors = answer
        .data
        .into_iter()
        .map(|item| (item.index, item.embedding));
    Ok(Parsed {
        vectors: vectors.collect(),
        tokens: answer
            .usage
            .and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)),
    })
}
