//! What is wrong with a request, in the shape that its client expects.

use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use hyper::body::Bytes;
use serde_json::json;

use super::limits::RETRY_AFTER_SECONDS;
use crate::http::answer::answer;

/// Whose shapes a path has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v1/…`
    OpenAi,
    /// `/embed`, `/info`
    Tei,
}

impl Dialect {
    /// The shapes of a path; `None` where people and monitoring ask.
    pub fn of_path(path: &str) -> Option<Dialect> {
        match path {
            "/embed" | "/info" | "/health" => Some(Dialect::Tei),
            _ if path == "/v1" || path.starts_with("/v1/") => Some(Dialect::OpenAi),
            _ => None,
        }
    }
}

/// What is wrong, as far as a program can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The request itself.
    Invalid,
    /// It has no token, or another one.
    Unauthorized,
    /// It is for another name than this machine's.
    Misdirected,
    /// There is no such model.
    NoModel,
    /// There is no such path.
    NoPath,
    /// The path is for another method.
    Method,
    /// The body took too long.
    TooSlow,
    /// It asks for too much at a time.
    TooLarge,
    /// The body is no JSON by its type.
    MediaType,
    /// Too much is worked on.
    Overloaded,
    /// The daemon stops, or its models are not loaded yet.
    Unavailable,
    /// A bug, or a broken model.
    Internal,
}

impl Problem {
    fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoModel | Self::NoPath => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `type` and the `code` of OpenAI's errors.
    fn openai(self) -> (&'static str, Option<&'static str>) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::Invalid | Self::Method | Self::MediaType | Self::Misdirected | Self::TooSlow => {
                (INVALID, None)
            }
            Self::Unauthorized => (INVALID, Some("invalid_api_key")),
            Self::NoModel => (INVALID, Some("model_not_found")),
            Self::NoPath => (INVALID, Some("unknown_url")),
            Self::TooLarge => (INVALID, Some("request_too_large")),
            Self::Overloaded => ("requests", Some("rate_limit_exceeded")),
            Self::Unavailable | Self::Internal => ("server_error", None),
        }
    }

    /// The `error_type` of text-embeddings-inference.
    fn tei(self) -> &'static str {
        match self {
            Self::Overloaded => "Overloaded",
            Self::Unavailable => "Unhealthy",
            Self::Internal => "Backend",
            _ => "Validation",
        }
    }

    /// Whether the same request may succeed soon.
    fn passes(self) -> bool {
        matches!(self, Self::Overloaded | Self::Unavailable)
    }
}

/// The most bytes of a message, which may quote what a client has sent.
const MAX_MESSAGE: usize = 1000;
/// The most bytes of the name of a field.
const MAX_PARAM: usize = 100;

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// An error of a request.
#[derive(Debug)]
pub(crate) struct ApiError {
    problem: Problem,
    message: String,
    /// The field that is at fault.
    param: Option<String>,
    /// A `code` of OpenAI's that says more than the problem.
    code: Option<&'static str>,
}

impl ApiError {
    pub fn new(problem: Problem, message: impl Into<String>) -> Self {
        Self {
            problem,
            message: cut(message.into(), MAX_MESSAGE),
            param: None,
            code: None,
        }
    }

    /// A value of this field cannot be used.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Problem::Invalid, message).of(param)
    }

    /// The field is at fault.
    pub fn of(self, param: impl Into<String>) -> Self {
        let param = Some(cut(param.into(), MAX_PARAM));
        Self { param, ..self }
    }

    /// With a code by which programs know it.
    pub fn coded(self, code: &'static str) -> Self {
        let code = Some(code);
        Self { code, ..self }
    }

    /// A path that does not exist.
    pub fn no_path(method: &Method, path: &str) -> Self {
        let message = format!(
            "there is no {method} {path}; see POST /v1/embeddings, GET /v1/models and POST /embed"
        );
        Self::new(Problem::NoPath, message)
    }

    /// The answer, in the shape of this dialect.
    pub fn response(self, dialect: Dialect) -> Response {
        let (kind, code) = self.problem.openai();
        let json = match dialect {
            Dialect::OpenAi => json!({"error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code.or(code),
            }}),
            Dialect::Tei => json!({"error": self.message, "error_type": self.problem.tei()}),
        };
        let body = Bytes::from(json.to_string());
        let mut response = answer(self.problem.status(), "application/json", body);
        if self.problem.passes() {
            let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}
