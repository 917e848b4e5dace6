//! Answers with vectors: the memory that they take, and what their heads say.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use hyper::body::Bytes;

use super::admission::Memory;
use super::embedding::Vectors;
use super::error::ApiError;
use super::limits::MAX_INLINE;
use super::service::Api;

/// How many texts were longer than the model's window, so that their ends did not count.
const TRUNCATED: HeaderName = HeaderName::from_static("x-truncated-texts");

/// Bytes of a value of a vector in memory and as text.
const BYTES_PER_VALUE: usize = 16;

/// Reserves memory for so many vectors and the text of them.
///
/// # Errors
/// If so much is not free.
pub(super) fn answer_memory(
    api: &Api,
    texts: usize,
    dimensions: usize,
) -> Result<Memory, ApiError> {
    let bytes = texts.saturating_mul(dimensions) * BYTES_PER_VALUE;
    api.admission.reserve(bytes)
}

/// The number of values in all vectors.
pub(super) fn values(vectors: &Vectors) -> usize {
    vectors.vectors.iter().map(Vec::len).sum()
}

/// A body that gives its memory back once it is sent.
pub(super) fn counted(body: Vec<u8>, memory: Memory) -> Bytes {
    struct Counted(Vec<u8>, #[allow(dead_code)] Memory);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    match body.len() <= MAX_INLINE {
        true => Bytes::from(body),
        false => Bytes::from_owner(Counted(body, memory)),
    }
}

/// The answer, which says how many texts were truncated, if any.
pub(super) fn marked(truncated: usize, mut response: Response) -> Response {
    if truncated > 0 {
        let headers = response.headers_mut();
        headers.insert(TRUNCATED, HeaderValue::from(truncated));
    }
    response
}
