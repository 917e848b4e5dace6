//! Reads a request: its body within limits, and JSON whose errors name the field.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap};
use futures_util::StreamExt;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::admission::Memory;
use super::error::{ApiError, Problem};
use super::limits::{
    BODY_TIMEOUT, DISCARD_TIMEOUT, MAX_BODY_BYTES, MAX_DISCARDED_BYTES, MAX_INLINE,
};
use super::service::Api;

/// What a body of one byte may take: itself, and what is made of it.
const COPIES: usize = 3;

/// A request is worked on for as long as this lives.
pub(super) struct Admission {
    _place: OwnedSemaphorePermit,
    _memory: Memory,
}

/// Admits a request and reads it, as one of this type.
///
/// # Errors
/// What is wrong with the request, or that there is no room for it.
pub(super) async fn admit<T>(api: &Api, request: Request) -> Result<(T, Admission), ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    let (head, body) = request.into_parts();
    let admission = match enter(api, &head.headers) {
        Ok(entered) => entered,
        Err(error) => {
            // Who waits for a word before it sends the body does not send it now.
            if !head.headers.contains_key(EXPECT) {
                let _ = timeout(DISCARD_TIMEOUT, discard(body)).await;
            }
            return Err(error);
        }
    };
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        // Without a length it may be too long. Otherwise the connection broke, and the answer reaches no client.
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let message = format!("the body did not arrive within {seconds} s");
            return Err(ApiError::new(Problem::TooSlow, message));
        }
    };
    let asked = beside(body.len(), move || parse(&body)).await??;
    Ok((asked, admission))
}

fn enter(api: &Api, headers: &HeaderMap) -> Result<Admission, ApiError> {
    api.check_open()?;
    check_type(headers)?;
    let declared = declared_length(headers);
    if declared.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let place = api.admission.enter()?;
    let bytes = declared.unwrap_or(MAX_BODY_BYTES) * COPIES;
    Ok(Admission {
        _place: place,
        _memory: api.admission.reserve(bytes)?,
    })
}

/// Reads a body to its end, if that is not too far.
async fn discard(body: Body) {
    let mut parts = body.into_data_stream();
    let mut read = 0;
    while let Some(Ok(part)) = parts.next().await
        && read < MAX_DISCARDED_BYTES
    {
        read += part.len();
    }
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
