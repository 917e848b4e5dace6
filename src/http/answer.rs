//! Answers, before they get the headers of `access`.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hyper::body::Bytes;

/// A text for a person.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response {
    answer(
        status,
        "text/plain; charset=utf-8",
        Bytes::from(text.into()),
    )
}

/// A body of this type.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, kind)], Body::from(body)).into_response()
}
