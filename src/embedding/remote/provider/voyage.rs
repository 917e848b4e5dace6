//! Voyage AI's `/v1/embeddings`: OpenAI's answers, and questions of its own.

use serde_json::{Value, json};

use super::dialect::{Call, Facts};

/// The API reference ("Text embedding models") has 1000 texts, and 120,000, 320,000 or 1,000,000 tokens by model; its
/// smallest number is the default.
pub(super) const FACTS: Facts = Facts {
    name: "voyage",
    server: "https://api.voyageai.com/v1",
    path: "v1/embeddings",
    base_has_version: true,
    max_inputs: 1000,
    max_tokens: 1_000_000,
    batch: 256,
    batch_tokens: 100_000,
    in_flight: 8,
    input_types: Some(("query", "document")),
    cuts: true,
    base64: true,
    has_base64: true,
};

pub(super) fn request(call: &Call<'_>) -> Value {
    let mut body = json!({ "model": call.model, "input": call.inputs, "truncation": call.cut });
    if call.base64 {
        body["encoding_format"] = json!("base64");
    }
    if let Some(dimensions) = call.dimensions {
        body["output_dimension"] = json!(dimensions);
    }
    if let Some(input_type) = call.input_type {
        body["input_type"] = json!(input_type);
    }
    body
}
