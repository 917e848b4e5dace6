//! The paths of the API.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};

use super::error::{ApiError, Dialect, Problem};
use super::service::Api;
use super::{models, openai, tei};
use crate::http::answer::text;

/// What programs ask.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/embed", post(tei::embed))
        .route("/info", get(tei::info))
        .route("/health", get(tei::health))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::disable())
        .with_state(api)
}

/// What monitoring asks, of a server that has no jobs.
pub(crate) fn probes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/healthz", get(async || text(StatusCode::OK, "alive\n")))
        .route("/readyz", get(readyz))
        .with_state(api)
}

async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let (status, said) = match (api.check_open().is_ok(), !api.models().is_empty()) {
        (false, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the server stops\n",
        ),
        (_, false) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the models are not loaded yet\n",
        ),
        (true, true) => (StatusCode::OK, "ready\n"),
    };
    text(status, said)
}

async fn method_not_allowed(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("{method} is not a method of {path}");
    let dialect = Dialect::of_path(path).unwrap_or(Dialect::OpenAi);
    ApiError::new(Problem::Method, message).response(dialect)
}
