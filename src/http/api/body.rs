//! Reads a request: its body within limits, and JSON whose errors name the field.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::admission::{Admission, Memory};
use super::error::{ApiError, Problem};
use super::limits::{BODY_TIMEOUT, MAX_BODY_BYTES, MAX_INLINE};

/// What a body of one byte may take: itself, and what is made of it.
const COPIES: usize = 3;

/// Reads a request of this type, and reserves the memory for it.
///
/// # Errors
/// What is wrong with the request.
pub(super) async fn read<T>(
    admission: &Admission,
    request: Request,
) -> Result<(T, Memory), ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    check_type(request.headers())?;
    let declared = declared_length(request.headers());
    if declared.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let memory = admission.reserve(declared.unwrap_or(MAX_BODY_BYTES) * COPIES)?;
    let body = timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES));
    let body = match body.await {
        Ok(Ok(body)) => body,
        // Without a length it may be too long. Otherwise the connection broke, and the answer reaches no client.
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let message = format!("the body did not arrive within {seconds} s");
            return Err(ApiError::new(Problem::TooSlow, message));
        }
    };
    let parsed = beside(body.len(), move || parse(&body)).await??;
    Ok((parsed, memory))
}

/// Does a piece of work here, or on another thread if it is a large one.
///
/// # Errors
/// If the work panics.
pub(super) async fn beside<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if size <= MAX_INLINE {
        return Ok(work());
    }
    let failed = |_| ApiError::new(Problem::Internal, "the request could not be worked on");
    spawn_blocking(work).await.map_err(failed)
}

/// A page of another site may send a body without asking first, but not one of this type.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    match kind {
        Some(kind) if kind.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::new(
            Problem::MediaType,
            "the body must be JSON, and the request say so: Content-Type: application/json",
        )),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    // A number that does not fit is larger than any limit.
    Some(length.parse().unwrap_or(usize::MAX))
}

fn too_large() -> ApiError {
    let most = MAX_BODY_BYTES >> 20;
    let message = format!("the body is larger than {most} MiB; send fewer texts at a time");
    ApiError::new(Problem::TooLarge, message)
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let parsed = parsed.map_err(|error| {
        let path = error.path().to_string();
        let param = path
            .split(['.', '['])
            .next()
            .filter(|name| !name.is_empty());
        let reason = error.inner();
        match param {
            Some(param) if reason.is_data() => {
                ApiError::invalid(param, format!("{path}: {reason}"))
            }
            _ if reason.is_data() => ApiError::new(Problem::Invalid, reason.to_string()),
            _ => ApiError::new(Problem::Invalid, format!("the body is not JSON: {reason}")),
        }
    })?;
    json.end().map_err(|reason| {
        ApiError::new(Problem::Invalid, format!("the body is not JSON: {reason}"))
    })?;
    Ok(parsed)
}
