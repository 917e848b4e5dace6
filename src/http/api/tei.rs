//! `/embed`, `/info` and `/health`, as text-embeddings-inference has them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::answering::{answer_memory, counted, marked, values};
use super::body::{admit, beside};
use super::embedding::Wanted;
use super::error::{ApiError, Dialect, Problem};
use super::input::Texts;
use super::limits::{MAX_REQUESTS, MAX_TEXTS, MAX_TOKENS};
use super::models::json;
use super::service::Api;
use crate::embedding::{Model, TextRole};
use crate::http::answer::{answer, text};

/// What may be asked. Fields that are unknown do not count, as there.
#[derive(Deserialize)]
struct EmbedRequest {
    inputs: Texts,
    /// Which model, where there are several: that server has one.
    model: Option<String>,
    /// False refuses texts that are longer than the model's window.
    truncate: Option<bool>,
    truncation_direction: Option<TruncationDirection>,
    prompt_name: Option<String>,
    /// Default: as the model does it for rows.
    normalize: Option<bool>,
    dimensions: Option<usize>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
enum TruncationDirection {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

pub(super) async fn embed(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answered = create(&api, request).await;
    answered.unwrap_or_else(|error| error.response(Dialect::Tei))
}

async fn create(api: &Api, request: Request) -> Result<Response, ApiError> {
    let (request, _admission) = admit::<EmbedRequest>(api, request).await?;
    let (_, served) = api.model(request.model.as_deref())?;
    let model = served.model;
    let role = role(&model, &request)?;
    let normalizes = normalizes(&model, &request)?;
    let texts = request.inputs.texts;
    let for_answer = answer_memory(api, texts.len(), model.dimensions())?;
    let window = model.window();
    let wanted = Wanted {
        dimensions: request.dimensions,
        field: "inputs",
        model,
        role,
        texts,
    };
    let mut vectors = api.embed(wanted).await?;
    let truncated = vectors.truncated;
    if truncated > 0 && request.truncate == Some(false) {
        let message = format!("inputs must not be longer than {window}; truncated are {truncated}");
        return Err(ApiError::new(Problem::TooLarge, message));
    }
    let size = values(&vectors);
    let render = move || {
        if normalizes {
            vectors.vectors.iter_mut().for_each(|vector| unit(vector));
        }
        // Only a map with keys that are no texts could fail.
        serde_json::to_vec(&vectors.vectors).unwrap_or_default()
    };
    let body = beside(size, render).await?;
    let response = answer(
        StatusCode::OK,
        "application/json",
        counted(body, for_answer),
    );
    Ok(marked(truncated, response))
}

/// The role that the name of a prompt stands for. Of the two, documents are the default.
fn role(model: &Model, request: &EmbedRequest) -> Result<TextRole, ApiError> {
    if request.truncation_direction == Some(TruncationDirection::Left) {
        let message =
            "the side on which texts are cut is the model's own; leave truncation_direction out";
        return Err(ApiError::invalid("truncation_direction", message));
    }
    let Some(name) = &request.prompt_name else {
        return Ok(TextRole::Document);
    };
    model.role_of_prompt(name).ok_or_else(|| {
        let message =
            format!("the prompt {name:?} is not in use here; there are query and document");
        ApiError::invalid("prompt_name", message)
    })
}

/// Whether vectors that are not of length 1 are made so.
fn normalizes(model: &Model, request: &EmbedRequest) -> Result<bool, ApiError> {
    match request.normalize {
        Some(false) if model.is_normalized() => Err(ApiError::invalid(
            "normalize",
            "the vectors of this model have length 1, as those of its rows; leave normalize out",
        )),
        Some(true) => Ok(!model.is_normalized()),
        _ => Ok(false),
    }
}

/// Gives a vector the length 1.
fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

pub(super) async fn info(State(api): State<Arc<Api>>) -> Response {
    let Some((id, served)) = api.models().all().into_iter().next() else {
        let error = ApiError::new(Problem::Unavailable, "no model is loaded yet");
        return error.response(Dialect::Tei);
    };
    json(&json!({
        "model_id": id,
        "model_sha": served.model.identity(),
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": served.model.pooling().map(ToString::to_string)}},
        "max_concurrent_requests": MAX_REQUESTS,
        "max_input_length": served.model.max_text_tokens(),
        "max_batch_tokens": MAX_TOKENS,
        "max_batch_requests": null,
        "max_client_batch_size": MAX_TEXTS,
        "auto_truncate": true,
        "tokenization_workers": api.engine().inference().threads,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    }))
}

pub(super) async fn health(State(api): State<Arc<Api>>) -> Response {
    let ready = api
        .check_open()
        .and_then(|()| match !api.models().is_empty() {
            true => Ok(()),
            false => Err(ApiError::new(
                Problem::Unavailable,
                "no model is loaded yet",
            )),
        });
    match ready {
        Ok(()) => text(StatusCode::OK, ""),
        Err(error) => error.response(Dialect::Tei),
    }
}
