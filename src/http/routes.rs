//! The paths.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router, middleware};

use super::access::{self, Access, Visitor};
use super::answer::{answer, text};
use super::api::{self, Api, ApiError, Dialect};
use super::health::{self, Readiness};
use super::shared::Shared;
use super::{metrics, status_json};

/// What the server shows.
pub(super) struct Content {
    /// For people and monitoring, if there are jobs.
    pub shared: Option<Arc<Shared>>,
    /// For programs, if there are models.
    pub api: Option<Arc<Api>>,
}

/// The answers to all requests.
pub(super) fn router(content: Content, access: Access) -> Router {
    let mut router = Router::new();
    let probes = content.api.clone().filter(|_| content.shared.is_none());
    if let Some(api) = probes {
        router = router.merge(api::probes(api));
    }
    if let Some(shared) = content.shared {
        router = router.merge(status_routes(shared));
    }
    if let Some(api) = content.api {
        router = router.merge(api::routes(api));
    }
    let check = middleware::from_fn_with_state(Arc::new(access), access::check);
    router.fallback(not_found).layer(check)
}

/// What people and monitoring ask.
fn status_routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/status", get(status))
        .with_state(shared)
}

async fn not_found(request: Request) -> Response {
    let path = request.uri().path();
    match Dialect::of_path(path) {
        Some(dialect) => ApiError::no_path(request.method(), path).response(dialect),
        None => text(
            StatusCode::NOT_FOUND,
            "there is no such page; see / and /metrics\n",
        ),
    }
}

async fn page(State(shared): State<Arc<Shared>>) -> Response {
    let mut response = answer(
        StatusCode::OK,
        "text/html; charset=utf-8",
        shared.page.document(),
    );
    if let Ok(policy) = HeaderValue::from_str(shared.page.policy()) {
        response
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let Some(snapshot) = shared.board.snapshot() else {
        return not_yet();
    };
    let body = shared.metrics.get(&snapshot, |snapshot| {
        metrics::render(snapshot, &shared.board)
    });
    answer(StatusCode::OK, metrics::CONTENT_TYPE, body)
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let Some(snapshot) = shared.board.snapshot() else {
        return not_yet();
    };
    let body = shared.status.get(&snapshot, |snapshot| {
        status_json::render(snapshot, &shared.board)
    });
    answer(StatusCode::OK, "application/json", body)
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    match health::hang(&shared.board, shared.started) {
        None => text(StatusCode::OK, "alive\n"),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>, visitor: Extension<Visitor>) -> Response {
    if shared.stop.is_cancelled() {
        return text(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the daemon is asked to stop\n",
        );
    }
    if let Some(reason) = health::silence(&shared.board, shared.started) {
        return text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n");
    }
    let Some(snapshot) = shared.board.snapshot() else {
        return not_yet();
    };
    let readiness = Readiness::of(&snapshot);
    let status = match readiness.not_at_work.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, readiness.text(*visitor == Visitor::Admitted))
}

fn not_yet() -> Response {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the daemon has not read its jobs table yet\n",
    )
}
