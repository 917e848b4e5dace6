//! Cohere's `/v2/embed`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::dialect::{Call, Facts, Parsed};
use super::embedding::Embedding;

/// 96 texts a call is the limit of the API reference ("Embed API (v2)"), which also names the input types.
pub(super) const FACTS: Facts = Facts {
    name: "cohere",
    server: "https://api.cohere.com",
    path: "v2/embed",
    base_has_version: false,
    max_inputs: 96,
    max_tokens: 1_000_000,
    batch: 96,
    batch_tokens: 50_000,
    in_flight: 8,
    input_types: Some(("search_query", "search_document")),
    cuts: true,
    base64: false,
    has_base64: true,
};

pub(super) fn request(call: &Call<'_>) -> Value {
    let mut body = json!({
        "model": call.model,
        "texts": call.inputs,
        "embedding_types": [if call.base64 { "base64" } else { "float" }],
        "truncate": if call.cut { "END" } else { "NONE" },
    });
    if let Some(dimensions) = call.dimensions {
        body["output_dimension"] = json!(dimensions);
    }
    if let Some(input_type) = call.input_type {
        body["input_type"] = json!(input_type);
    }
    body
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Embeddings,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Embeddings {
    #[serde(alias = "base64")]
    float: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<BilledUnits>,
}

#[derive(Deserialize)]
struct BilledUnits {
    input_tokens: Option<f64>,
}

pub(super) fn parse(body: &[u8]) -> serde_json::Result<Parsed> {
    let answer: Answer = serde_json::from_slice(body)?;
    let vectors = answer
        .embeddings
        .float
        .into_iter()
        .map(|vector| (None, vector));
    let units = answer.meta.and_then(|meta| meta.billed_units);
    Ok(Parsed {
        vectors: vectors.collect(),
        tokens: units
            .and_then(|units| units.input_tokens)
            .map(|tokens| tokens as u64),
    })
}
