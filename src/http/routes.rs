//! The paths.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router, middleware};

use super::access::{self, Visitor};
use super::answer::{answer, text};
use super::health::{self, Readiness};
use super::shared::Shared;
use super::{metrics, status_json};

/// The answers to all requests.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/status", get(status))
        .fallback(async || {
            text(
                StatusCode::NOT_FOUND,
                "there is no such page; see / and /metrics\n",
            )
        })
        .layer(middleware::from_fn_with_state(
            shared.clone(),
            access::check,
        ))
        .with_state(shared)
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
    match health::silence(&shared.board, shared.started) {
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
