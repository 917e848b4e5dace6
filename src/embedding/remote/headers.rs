//! Headers that a row adds to requests, and the one with the key.

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::secret::Secret;
use crate::embedding::options::{InvalidOptions, text, value, wrong_type};

/// Headers that HTTP itself needs, or that say what the body is.
const RESERVED: [&str; 14] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header of the row: its name in lowercase, and its value.
pub(super) type Header = (String, Secret);

/// `headers` of the row.
pub(super) fn headers(object: &Map<String, Value>) -> Result<Vec<Header>, InvalidOptions> {
    let expected = "an object such as {\"OpenAI-Project\": \"proj_1\"}";
    let headers = match value(object, "headers") {
        None => return Ok(Vec::new()),
        Some(Value::Object(headers)) => headers,
        // The value is not repeated: it may be a secret.
        Some(_) => return Err(InvalidOptions(format!("headers must be {expected}"))),
    };
    headers
        .iter()
        .map(|(name, value)| header(name, value))
        .collect()
}

fn header(name: &str, value: &Value) -> Result<Header, InvalidOptions> {
    let parsed = header_name("headers", name)?;
    if RESERVED.contains(&parsed.as_str()) {
        return Err(InvalidOptions(format!(
            "headers has {name:?}, which the HTTP client sets itself; remove it"
        )));
    }
    let value = value
        .as_str()
        .filter(|value| HeaderValue::from_str(value).is_ok());
    let Some(value) = value else {
        return Err(InvalidOptions(format!(
            "the value of {name:?} in headers must be a text without control characters"
        )));
    };
    Ok((parsed.as_str().to_owned(), Secret::new(value)))
}

/// `api_key_header`, in lowercase: where the key goes.
pub(super) fn key_header(object: &Map<String, Value>) -> Result<String, InvalidOptions> {
    let Some(name) = text(object, "api_key_header")? else {
        return Ok(AUTHORIZATION.as_str().to_owned());
    };
    let parsed = header_name("api_key_header", name)?;
    if RESERVED.contains(&parsed.as_str()) {
        return Err(wrong_type(
            "api_key_header",
            &Value::String(name.into()),
            "the name of a header for keys, such as api-key",
        ));
    }
    Ok(parsed.as_str().to_owned())
}

fn header_name(key: &str, name: &str) -> Result<HeaderName, InvalidOptions> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| InvalidOptions(format!("{key} has {name:?}, which is no name of a header")))
}

/// Whether a header has something in it that only the server may see.
pub(super) fn is_credential(name: &str) -> bool {
    ["auth", "cookie", "key", "secret", "token"]
        .iter()
        .any(|word| name.contains(word))
}
