//! `GET /v1/models`: which models there are.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Bytes;
use serde::Serialize;

use super::error::Dialect;
use super::service::Api;
use crate::http::answer::answer;
use crate::status::served_models::ServedModel;

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelObject>,
}

/// As OpenAI has it, and what a program that makes a table wants to know.
#[derive(Serialize)]
struct ModelObject {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    dimensions: usize,
    /// Not known of a model of another server.
    max_input_tokens: Option<usize>,
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Response {
    let data = api.models().all().into_iter();
    json(&ModelList {
        object: "list",
        data: data.map(|(id, served)| object(id, &served)).collect(),
    })
}

pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Response {
    match api.model(Some(&id)) {
        Ok((id, served)) => json(&object(id, &served)),
        Err(error) => error.response(Dialect::OpenAi),
    }
}

fn object(id: String, served: &ServedModel) -> ModelObject {
    let since = served.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    ModelObject {
        id,
        object: "model",
        created: since.as_secs(),
        owned_by: "lantern",
        dimensions: served.model.dimensions(),
        max_input_tokens: served.model.max_text_tokens(),
    }
}

/// A value that is not large.
pub(super) fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).unwrap_or_default();
    answer(StatusCode::OK, "application/json", Bytes::from(body))
}
