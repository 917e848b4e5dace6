//! What the headers of an answer say of limits.
//!
//! OpenAI's headers are `x-ratelimit-remaining-requests`, `-remaining-tokens`, `-reset-requests` and `-reset-tokens`
//! (guide "Rate limits"); the resets are times such as `6m0s` or `8.64s`. Azure and vLLM's gateways copy them.

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// A server that asks for a longer pause is asked again after that.
pub(super) const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// What is left until a moment.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    pub left: u64,
    pub resets_at: Instant,
}

/// What is left of `requests` or `tokens`, where the server says it.
pub(super) fn budget(now: Instant, headers: &HeaderMap, of: &str) -> Option<Budget> {
    let header = |what: &str| {
        let value = headers.get(format!("x-ratelimit-{what}-{of}"))?;
        value.to_str().ok()
    };
    let left: i64 = header("remaining")?.trim().parse().ok()?;
    let resets = reset(header("reset")?)?;
    Some(Budget {
        left: left.max(0) as u64,
        resets_at: now + resets.min(MAX_PAUSE),
    })
}

/// `6m0s`, `8.64s`, `12ms`, or seconds without a unit.
fn reset(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let seconds = match &tail[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * seconds;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = &tail[unit..];
    }
    Some(total)
}

/// What the server asks to wait: `retry-after-ms` (Azure), or `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        list.iter().map(header).collect()
    }

    #[test]
    fn resets_are_read_in_every_form() {
        for (text, milliseconds) in [
            ("6m0s", 360_000),
            ("8.64s", 8640),
            ("12ms", 12),
            ("1h2m3s", 3_723_000),
            ("17", 17_000),
        ] {
            assert_eq!(
                reset(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in [
            "soon",
            "s",
            "1x",
            "-3s",
            "1.2.3s",
            "99999999999999999999999h",
        ] {
            assert_eq!(reset(text), None, "{text}");
        }
    }

    #[test]
    fn a_pause_is_read_in_every_form() {
        let after = |list| retry_after(&headers(list));
        assert_eq!(after(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
        let azure = [("retry-after", "3"), ("retry-after-ms", "250")];
        assert_eq!(after(&azure), Some(Duration::from_millis(250)));
        let past = [("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")];
        assert_eq!(after(&past), Some(Duration::ZERO));
        for wrong in ["-1", "soon", "NaN"] {
            let wrong = HeaderMap::from_iter([(RETRY_AFTER, wrong.parse().unwrap())]);
            assert_eq!(retry_after(&wrong), None);
        }
    }
}
