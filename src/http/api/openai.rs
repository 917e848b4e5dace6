//! `POST /v1/embeddings`, as OpenAI has it, and with `input_type`, which OpenAI's models do not need.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::answering::{answer_memory, counted, marked, values};
use super::body::{admit, beside};
use super::embedding::{Vectors, Wanted, texts_of};
use super::error::{ApiError, Dialect};
use super::input::Input;
use super::service::Api;
use crate::embedding::TextRole;
use crate::http::answer::answer;

/// What may be asked. An unknown field is an error: it may be a misspelled `input_type`, and the vectors wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingRequest {
    input: Input,
    model: Option<String>,
    encoding_format: Option<EncodingFormat>,
    dimensions: Option<usize>,
    input_type: Option<InputType>,
    /// Who uses the program, for OpenAI's own statistics.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    /// Little-endian values of 32 bits.
    Base64,
}

/// What the texts are. OpenAI has no such field; those who have one call documents passages, too.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum InputType {
    Query,
    #[default]
    #[serde(alias = "passage")]
    Document,
}

#[derive(Serialize)]
struct EmbeddingList<'a> {
    object: &'static str,
    data: Vec<EmbeddingObject<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct EmbeddingObject<'a> {
    object: &'static str,
    index: usize,
    embedding: EncodedVector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EncodedVector<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

pub(super) async fn embeddings(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answered = create(&api, request).await;
    answered.unwrap_or_else(|error| error.response(Dialect::OpenAi))
}

async fn create(api: &Api, request: Request) -> Result<Response, ApiError> {
    let (request, _admission) = admit::<EmbeddingRequest>(api, request).await?;
    let (id, served) = api.model(request.model.as_deref())?;
    let model = served.model;
    let texts = texts_of(&model, request.input).await?;
    let for_answer = answer_memory(api, texts.len(), model.dimensions())?;
    let wanted = Wanted {
        role: match request.input_type.unwrap_or_default() {
            InputType::Query => TextRole::Query,
            InputType::Document => TextRole::Document,
        },
        dimensions: request.dimensions,
        field: "input",
        model,
        texts,
    };
    let vectors = api.embed(wanted).await?;
    let format = request.encoding_format.unwrap_or_default();
    let (size, truncated) = (values(&vectors), vectors.truncated);
    let body = beside(size, move || render(&id, &vectors, format)).await?;
    let response = answer(
        StatusCode::OK,
        "application/json",
        counted(body, for_answer),
    );
    Ok(marked(truncated, response))
}

fn render(model: &str, vectors: &Vectors, format: EncodingFormat) -> Vec<u8> {
    let data = vectors.vectors.iter().enumerate();
    let data = data.map(|(index, vector)| EmbeddingObject {
        object: "embedding",
        index,
        embedding: match format {
            EncodingFormat::Float => EncodedVector::Float(vector),
            EncodingFormat::Base64 => EncodedVector::Base64(base64(vector)),
        },
    });
    let list = EmbeddingList {
        object: "list",
        data: data.collect(),
        model,
        usage: Usage {
            prompt_tokens: vectors.tokens,
            total_tokens: vectors.tokens,
        },
    };
    // Only a map with keys that are no texts could fail.
    serde_json::to_vec(&list).unwrap_or_default()
}

fn base64(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}
