//! What an answer without vectors means.

use std::time::Duration;

use super::error::RemoteFailure;
use super::words::Words;

/// What to do about an answer without vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Wait, and send it again: it is one request too many.
    Throttled,
    /// Send it again, to another server first.
    Passing,
    /// This server takes no request like it, whatever the texts are.
    Unfit,
    /// One of the texts is too long, or all of them together.
    TooLong,
    /// One of the texts is refused, or all of them together.
    Refused,
}

/// Decides by status and words.
pub(super) fn judge(
    status: u16,
    words: &Words,
    retry_after: Option<Duration>,
) -> (Verdict, RemoteFailure) {
    let text = words.text.clone();
    let lower = text.to_lowercase();
    let code = words.code.to_lowercase();
    if is_quota(status, &lower, &code) {
        return (
            Verdict::Unfit,
            RemoteFailure::Quota {
                status,
                words: text,
            },
        );
    }
    if is_key(status, &lower, &code) {
        let remedy = match status {
            403 => "check what the key may do there",
            _ => "set a valid one in the variable that api_key_env names",
        };
        return (
            Verdict::Unfit,
            RemoteFailure::Key {
                status,
                words: text,
                remedy,
            },
        );
    }
    match status {
        // 503 with the time to come back is a queue that is full.
        429 => (
            Verdict::Throttled,
            RemoteFailure::Throttled {
                status,
                words: text,
                retry_after,
            },
        ),
        503 if retry_after.is_some() => (
            Verdict::Throttled,
            RemoteFailure::Throttled {
                status,
                words: text,
                retry_after,
            },
        ),
        // Ollama answers 500 for a text that is too long (`server/routes.go`, `EmbedHandler`, in its older versions).
        400 | 413 | 422 | 500 if is_too_long(&lower) => {
            let remedy =
                "shorten it, or allow to cut it with \"truncate\": \"cut\" in runtime_params";
            (
                Verdict::TooLong,
                RemoteFailure::TooLong {
                    status,
                    words: text,
                    remedy,
                },
            )
        }
        400 | 413 | 422 => (
            Verdict::Refused,
            RemoteFailure::Text {
                status,
                words: text,
            },
        ),
        408 | 409 | 425 | 500 | 502..=504 | 506..=599 => (
            Verdict::Passing,
            RemoteFailure::Server {
                status,
                words: text,
            },
        ),
        status => (Verdict::Unfit, configuration(status, text)),
    }
}

/// Every text is refused.
pub(super) fn configuration(status: u16, words: String) -> RemoteFailure {
    let remedy = match status {
        300..=399 => "set base_url to where it redirects",
        404 | 405 => {
            "check base_url (does its path end in the version, such as /v1?) and the name of the model"
        }
        _ => {
            "check embedding_model, and dimensions, input_type and the other keys of runtime_params"
        }
    };
    RemoteFailure::Configuration {
        status,
        words,
        remedy: remedy.into(),
    }
}

/// OpenAI answers 429 with the code `insufficient_quota` (guide "Error codes"), others 402.
fn is_quota(status: u16, words: &str, code: &str) -> bool {
    let has_quota = code.contains("insufficient_quota") || code.contains("billing");
    status == 402 || (status == 429 && (has_quota || words.contains("exceeded your current quota")))
}

/// 401 and 403; Google's server for OpenAI's clients answers 400 for a key that has expired.
fn is_key(status: u16, words: &str, code: &str) -> bool {
    let named = words.contains("api key") || code.contains("api_key");
    let wrong = ["expired", "invalid", "incorrect", "not valid"];
    let is_wrong = wrong
        .iter()
        .any(|word| words.contains(word) || code.contains(word));
    matches!(status, 401 | 403) || (status == 400 && named && is_wrong)
}

/// The messages about length of OpenAI ("maximum context length is 8192 tokens, however you requested 8610 tokens") and
/// vLLM, text-embeddings-inference ("`inputs` must have less than 512 tokens. Given: 534", "… 32000 characters …"), Ollama
/// ("the input length exceeds the context length"), Cohere ("too many tokens: total number of tokens … cannot exceed"),
/// Voyage ("Please lower the number of tokens").
fn is_too_long(words: &str) -> bool {
    let phrases = [
        "context length",
        "context window",
        "context size",
        "maximum input length",
        "must have less than",
        "too many tokens",
        "number of tokens",
        "max_tokens_per",
        "maximum number of tokens",
        "input is too long",
        "input is too large",
        "input length",
        "maximum token length",
        "max tokens",
        "token limit",
        "longer than the maximum",
        "too long",
    ];
    phrases.iter().any(|phrase| words.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, text: &str, code: &str) -> (Verdict, RemoteFailure) {
        let words = Words {
            text: text.into(),
            code: code.into(),
        };
        judge(status, &words, None)
    }

    #[test]
    fn statuses_and_words_decide() {
        use Verdict::{Passing, Refused, Throttled, TooLong, Unfit};
        let openai = "This model's maximum context length is 8192 tokens, however you requested 8610 tokens (8610 in your \
                      prompt; 0 for the completion).";
        for (status, words, code, expected) in [
            (429, "Rate limit reached", "rate_limit_exceeded", Throttled),
            (429, "You exceeded your current quota", "", Unfit),
            (429, "no", "insufficient_quota", Unfit),
            (401, "no", "", Unfit),
            (402, "no", "", Unfit),
            (400, "API key expired. Please renew the API key.", "", Unfit),
            (400, "API key not valid", "", Unfit),
            (
                404,
                "model \"x\" not found, try pulling it first",
                "",
                Unfit,
            ),
            (302, "", "", Unfit),
            (501, "", "", Unfit),
            (503, "overloaded", "", Passing),
            (500, "CUDA", "", Passing),
            (408, "", "", Passing),
            (
                500,
                "the input length exceeds the context length",
                "",
                TooLong,
            ),
            (400, openai, "", TooLong),
            (
                413,
                "Input validation error: `inputs` must have less than 512 tokens. Given: 534",
                "",
                TooLong,
            ),
            (400, "input[3] is not valid", "", Refused),
            (
                413,
                "batch size 64 > maximum allowed batch size 32",
                "",
                Refused,
            ),
        ] {
            assert_eq!(verdict(status, words, code).0, expected, "{status} {words}");
        }
    }

    #[test]
    fn a_full_queue_that_says_when_to_come_back_is_no_failure() {
        let (verdict, _) = judge(503, &Words::default(), Some(Duration::from_secs(1)));
        assert_eq!(verdict, Verdict::Throttled);
    }
}
