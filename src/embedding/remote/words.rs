//! A server's own words about what went wrong, as much of them as a person reads.

use serde_json::Value;

use super::secret::Secret;

/// The most characters of them.
const MAX_CHARACTERS: usize = 400;

/// What a server says in the body of an answer that is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The message, cut. Never empty.
    pub text: String,
    /// The kind of error, where the server names one: `insufficient_quota`.
    pub code: String,
}

/// Reads them from a body. The key, which some servers repeat, is left out.
pub(super) fn read(body: &[u8], key: Option<&Secret>) -> Words {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let text = match &json {
        Some(json) => message(json).unwrap_or_else(|| json.to_string()),
        None => plain(&String::from_utf8_lossy(body)),
    };
    let text = key.map_or_else(|| text.clone(), |key| key.redact(&text));
    let code = json.as_ref().map(code).unwrap_or_default();
    Words {
        text: cut(&text),
        code,
    }
}

/// `{"error": {"message": …}}` of OpenAI and vLLM, `{"error": …}` of text-embeddings-inference and Ollama, `{"message": …}`
/// of Cohere and older vLLM, `{"detail": …}` of Voyage and of FastAPI, where it may be a list of `{"msg": …}`.
fn message(json: &Value) -> Option<String> {
    ["error", "message", "detail", "msg"]
        .iter()
        .find_map(|key| match json.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Array(list) => {
                let messages: Vec<_> = list.iter().filter_map(message).collect();
                (!messages.is_empty()).then(|| messages.join("; "))
            }
            inner => message(inner),
        })
}

fn code(json: &Value) -> String {
    let error = json.get("error").unwrap_or(json);
    let texts = ["code", "type", "error_type"].map(|key| error.get(key).or_else(|| json.get(key)));
    let texts: Vec<&str> = texts
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    texts.join(" ")
}

/// A page for people is known by its title.
fn plain(text: &str) -> String {
    let text = text.trim();
    if !text.starts_with('<') {
        return match text {
            "" => "without a reason".into(),
            text => text.to_owned(),
        };
    }
    let lower = text.to_ascii_lowercase();
    let title = lower
        .find("<title>")
        .zip(lower.find("</title>"))
        .map(|(from, to)| (from + 7, to));
    let title = title
        .and_then(|(from, to)| text.get(from..to))
        .map(str::trim);
    match title {
        Some(title) if !title.is_empty() => format!("a web page, \"{title}\""),
        _ => "a web page".into(),
    }
}

fn cut(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((place, _)) => format!("{}…", &text[..place]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        read(body.as_bytes(), None).text
    }

    #[test]
    fn the_message_is_found_in_the_shape_of_every_provider() {
        for (body, expected) in [
            (
                r#"{"error": {"message": "no", "type": "t", "code": null}}"#,
                "no",
            ),
            (r#"{"error": "no", "error_type": "Validation"}"#, "no"),
            (r#"{"object": "error", "message": "no", "code": 400}"#, "no"),
            (r#"{"detail": "no"}"#, "no"),
            (
                r#"{"detail": [{"loc": [], "msg": "no"}, {"msg": "never"}]}"#,
                "no; never",
            ),
            (r#"{"other": 1}"#, r#"{"other":1}"#),
            ("  Bad gateway\n", "Bad gateway"),
            ("", "without a reason"),
            (
                "<!doctype html><html><TITLE> 502 </TITLE>",
                "a web page, \"502\"",
            ),
            ("<html>", "a web page"),
            ("</title><title>", "a web page"),
        ] {
            assert_eq!(text(body), expected, "{body}");
        }
    }

    #[test]
    fn they_are_cut_and_never_have_the_key() {
        assert_eq!(text(&"ä".repeat(5000)).chars().count(), MAX_CHARACTERS + 1);
        let key = Secret::new("sk-abcdefgh");
        let words = read(
            br#"{"error": {"message": "Incorrect key sk-abcdefgh."}}"#,
            Some(&key),
        );
        assert_eq!(words.text, "Incorrect key ….");
    }

    #[test]
    fn the_kind_is_found() {
        let body =
            br#"{"error": {"message": "x", "type": "insufficient_quota", "code": "billing"}}"#;
        assert_eq!(read(body, None).code, "billing insufficient_quota");
    }
}
