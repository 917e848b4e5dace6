//! Values of `runtime_params` that are numbers: counts, times, prices. And the number of tokens of a text.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::embedding::options::{InvalidOptions, count, value, wrong_type};

/// The longest time that can be set.
const MAX_DURATION: Duration = Duration::from_secs(3600);

/// A whole number from 1 to `max`.
pub(super) fn between(
    object: &Map<String, Value>,
    key: &str,
    max: usize,
) -> Result<Option<usize>, InvalidOptions> {
    let number = count(object, key)?.map(usize::from);
    match number.filter(|number| *number > max) {
        Some(number) => Err(InvalidOptions(format!(
            "{key} is {number}, but must be from 1 to {max}"
        ))),
        None => Ok(number),
    }
}

/// Seconds, or a text such as `30s`.
pub(super) fn duration(
    object: &Map<String, Value>,
    key: &str,
) -> Result<Option<Duration>, InvalidOptions> {
    let Some(value) = value(object, key) else {
        return Ok(None);
    };
    let duration = match value {
        Value::Number(seconds) => seconds
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        Value::String(text) => match text.parse() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => humantime::parse_duration(text).ok(),
        },
        _ => None,
    };
    let in_range = duration.filter(|duration| !duration.is_zero() && *duration <= MAX_DURATION);
    let expected = "a time of at most an hour: seconds, or a text such as \"30s\"";
    in_range
        .map(Some)
        .ok_or_else(|| wrong_type(key, value, expected))
}

/// A number that is not negative.
pub(super) fn price(object: &Map<String, Value>, key: &str) -> Result<Option<f64>, InvalidOptions> {
    let price = |value: &Value| {
        let price = value.as_f64().filter(|price| *price >= 0.0);
        price.ok_or_else(|| wrong_type(key, value, "a number that is not negative"))
    };
    value(object, key).map(price).transpose()
}

/// About how many tokens a text has, without a tokenizer; never 0.
///
/// English has about four characters a token in the vocabularies of today. Other scripts have more tokens: about one for
/// two letters, or one for a Chinese, Japanese or Korean character, which have three bytes. The estimate is rather too
/// high, so that a request stays below the limit.
pub(crate) fn estimate_tokens(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    let others = text.len() - ascii;
    ascii.div_ceil(4) + others.div_ceil(3) + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(json: &str) -> Result<Option<Duration>, InvalidOptions> {
        let object: Map<String, Value> = serde_json::from_str(json).unwrap();
        duration(&object, "timeout")
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (json, milliseconds) in [
            (r#"{"timeout": 30}"#, 30_000),
            (r#"{"timeout": 0.5}"#, 500),
            (r#"{"timeout": "30"}"#, 30_000),
            (r#"{"timeout": "30s"}"#, 30_000),
            (r#"{"timeout": "1m 250ms"}"#, 60_250),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(seconds(json).unwrap(), Some(expected), "{json}");
        }
        assert_eq!(seconds(r#"{"timeout": null}"#).unwrap(), None);
        for value in [
            "0", "-1", "1e300", "\"\"", "\"2h\"", "\"NaN\"", "\"-1s\"", "[]", "true",
        ] {
            let error = seconds(&format!("{{\"timeout\": {value}}}")).unwrap_err();
            assert!(error.to_string().contains("at most an hour"), "{error}");
        }
    }

    #[test]
    fn every_text_has_tokens_and_dense_scripts_have_more() {
        assert!(estimate_tokens("") > 0);
        assert!(estimate_tokens("中文字符") > estimate_tokens("abcd"));
        assert!((20..40).contains(&estimate_tokens(&"word ".repeat(20))));
    }
}
