//! What a stub computes: requests and answers of each provider, and the vectors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::behavior::{Act, Behavior};

/// The vector that every stub has for a text: of length 1, and another one for every text.
pub fn vector_of(text: &str, dimensions: usize) -> Vec<f32> {
    let digest = Sha256::digest(text.as_bytes());
    let (seed, _) = digest.split_at(8);
    let mut state = u64::from_le_bytes(seed.try_into().unwrap_or_default()) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let vector: Vec<f32> = (0..dimensions).map(|_| next()).collect();
    let length = vector
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    vector.into_iter().map(|number| number / length).collect()
}

/// Tokens of a text, as a stub counts them.
pub(super) fn tokens_of(text: &str) -> usize {
    text.split_whitespace().count().max(1)
}

/// A provider's shape of requests and answers, by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    OpenAi,
    Cohere,
    Ollama,
}

impl Shape {
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/embeddings" => Some(Self::OpenAi),
            "/v2/embed" => Some(Self::Cohere),
            "/api/embed" => Some(Self::Ollama),
            _ => None,
        }
    }

    pub(super) fn texts(self, body: &Value) -> Vec<String> {
        let key = if self == Self::Cohere {
            "texts"
        } else {
            "input"
        };
        match &body[key] {
            Value::String(text) => vec![text.clone()],
            Value::Array(texts) => texts
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Whether the request asks to cut texts that are too long.
    pub(super) fn cuts(self, body: &Value) -> bool {
        match self {
            Self::OpenAi => body["truncation"] == true,
            Self::Cohere => body["truncate"] == "END",
            Self::Ollama => body["truncate"] == true,
        }
    }

    /// What the provider says of a text that is too long.
    pub(super) fn too_long(self, max: usize, given: usize) -> Value {
        match self {
            Self::OpenAi => json!({ "error": { "type": "invalid_request_error", "message": format!(
                "This model's maximum context length is {max} tokens, however you requested {given} tokens ({given} in \
                 your prompt; 0 for the completion). Please reduce your prompt; or completion length."
            ) } }),
            Self::Cohere => json!({ "message": format!(
                "invalid request: too many tokens: total number of tokens in the text {given} cannot exceed {max}"
            ) }),
            Self::Ollama => json!({ "error": "the input length exceeds the context length" }),
        }
    }

    pub(super) fn error(self, message: &str) -> Value {
        match self {
            Self::OpenAi => json!({ "error": { "message": message } }),
            Self::Cohere => json!({ "message": message }),
            Self::Ollama => json!({ "error": message }),
        }
    }

    /// The whole answer.
    pub(super) fn answer(
        self,
        body: &Value,
        texts: &[String],
        behavior: &Behavior,
        act: &Act,
    ) -> String {
        let asked = body["dimensions"]
            .as_u64()
            .or(body["output_dimension"].as_u64());
        let dimensions = match act {
            Act::Dimensions(other) => *other,
            _ => asked.map_or(behavior.dimensions, |asked| asked as usize),
        };
        let tokens: usize = texts.iter().map(|text| tokens_of(text)).sum();
        let as_base64 =
            body["encoding_format"] == "base64" || body["embedding_types"][0] == "base64";
        let vectors = texts
            .iter()
            .map(|text| vector(body, text, dimensions, behavior))
            .map(|vector| number_list(vector, dimensions, act, as_base64));
        let vectors = miscounted(vectors.collect(), act);
        let vectors_in_order = || vectors.join(",");
        match self {
            Self::OpenAi => format!(
                r#"{{"object":"list","model":"stub","data":[{}],"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
                items(&vectors, act).join(",")
            ),
            Self::Cohere => format!(
                r#"{{"id":"1","embeddings":{{"{}":[{}]}},"meta":{{"billed_units":{{"input_tokens":{tokens}}}}}}}"#,
                if as_base64 { "base64" } else { "float" },
                vectors_in_order()
            ),
            Self::Ollama => format!(
                r#"{{"model":"stub","embeddings":[{}],"prompt_eval_count":{tokens}}}"#,
                vectors_in_order()
            ),
        }
    }
}

/// The vector of a text; `None` for one that is to have none.
fn vector(body: &Value, text: &str, dimensions: usize, behavior: &Behavior) -> Option<Vec<f32>> {
    if behavior.nan.as_ref().is_some_and(|nan| text.contains(nan)) {
        return None;
    }
    let model = body["model"].as_str().unwrap_or_default();
    Some((behavior.vector)(model, text, dimensions))
}

/// A vector in JSON.
fn number_list(vector: Option<Vec<f32>>, dimensions: usize, act: &Act, as_base64: bool) -> String {
    if let Act::Numbers(number) = act {
        return format!("[{}]", vec![*number; dimensions].join(","));
    }
    let Some(vector) = vector else {
        return format!("[{}]", vec!["NaN"; dimensions].join(","));
    };
    if as_base64 {
        let bytes: Vec<u8> = vector
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        return format!("\"{}\"", STANDARD.encode(bytes));
    }
    json!(vector).to_string()
}

fn miscounted(mut vectors: Vec<String>, act: &Act) -> Vec<String> {
    match act {
        Act::TooFew => drop(vectors.pop()),
        Act::TooMany => vectors.extend(vectors.first().cloned()),
        _ => {}
    }
    vectors
}

fn items(vectors: &[String], act: &Act) -> Vec<String> {
    let item = |(index, vector): (usize, &String)| {
        let index = match act {
            Act::SameIndex => 0,
            Act::ShiftedIndex => index + 1,
            _ => index,
        };
        format!(r#"{{"object":"embedding","index":{index},"embedding":{vector}}}"#)
    };
    let mut items: Vec<_> = vectors.iter().enumerate().map(item).collect();
    if matches!(act, Act::Reversed) {
        items.reverse();
    }
    items
}
