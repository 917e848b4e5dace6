//! What `runtime_params` says of texts: the template, and how documents are cut. The other keys are the model's.

use serde_json::{Map, Value};

use crate::embedding::{Model, ModelOptions, RemoteOptions};
use crate::pipeline::table::passages::Cutting;
use crate::pipeline::table::template::Template;
use crate::similar::most_similar;
use crate::splitting::Mode;

/// The keys that are taken out of `runtime_params`.
const KEYS: [&str; 5] = [
    "template",
    "chunk_tokens",
    "chunk_overlap",
    "chunk_mode",
    "max_document_bytes",
];
/// The least that may be asked for as the most tokens of a passage.
const MIN_TOKENS: usize = 8;
/// The largest document that is cut, unless the job says otherwise.
const DEFAULT_DOCUMENT_BYTES: usize = 16 << 20;
/// The largest value that PostgreSQL stores.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;

/// What a job asks of its texts. The default: the text of the source column, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// What is embedded of a text and its row.
    pub template: Option<Template>,
    /// How documents are cut, where the job has a table for passages.
    pub passages: PassageOptions,
}

/// How documents are cut into passages, as the job says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassageOptions {
    /// The most tokens of a passage, with its overlap. `None`: what the model's window leaves, up to a limit.
    pub tokens: Option<usize>,
    /// How much of a passage is the end of the one before.
    pub overlap: Overlap,
    /// Where texts are cut: `text`, `markdown`, `code:rust`.
    pub mode: String,
    /// A larger document is quarantined.
    pub max_document_bytes: usize,
}

/// How much of a passage is the end of the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Overlap {
    /// A share of the passage's tokens, at most a half.
    Share(f64),
    /// A number of tokens.
    Tokens(usize),
}

impl Eq for Overlap {}

impl Default for PassageOptions {
    fn default() -> Self {
        PassageOptions {
            tokens: None,
            overlap: Overlap::Share(0.1),
            mode: "text".into(),
            max_document_bytes: DEFAULT_DOCUMENT_BYTES,
        }
    }
}

/// The most tokens of a passage where the job does not say: longer ones make a vector of many things.
const DEFAULT_TOKENS: usize = 256;

impl TextOptions {
    /// How documents are cut for this model: a passage has a place in its window behind the prompt and the template's own
    /// text. Fields of rows are of any length, and take what they need from the end of a passage.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn cutting(&self, model: &Model) -> Result<Cutting, String> {
        let own_text = self.template.as_ref().map(Template::own_text);
        let taken = own_text.map_or(0, |text| model.text_tokens().count(&text));
        let room = match model.room_for_text() {
            Some(room) => Some(room_beside_template(room, taken, model.name())?),
            None => None,
        };
        self.passages.resolve(room, model.name())
    }
}

/// The tokens for a passage where the template takes some of them. A template that leaves none would be all that is
/// embedded: each passage would have the same vector.
fn room_beside_template(room: usize, taken: usize, model: &str) -> Result<usize, String> {
    let left = room.saturating_sub(taken);
    if taken > 0 && left < MIN_TOKENS {
        return Err(format!(
            "the text of the template itself has {taken} tokens, and the model {model} reads {room} of a passage with its \
             template; shorten the template, or use a model with a larger window"
        ));
    }
    Ok(left.max(1))
}

impl PassageOptions {
    /// These options with their defaults for a model in whose window a passage has a place of so many tokens, if that is
    /// known.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    fn resolve(&self, room: Option<usize>, model: &str) -> Result<Cutting, String> {
        if let (Some(tokens), Some(room)) = (self.tokens, room)
            && tokens > room
        {
            return Err(format!(
                "chunk_tokens is {tokens}, but the model {model} leaves {room} for a passage; set chunk_tokens to {room} or \
                 less"
            ));
        }
        let max_tokens = self.tokens.unwrap_or(DEFAULT_TOKENS);
        let max_tokens = room.map_or(max_tokens, |room| max_tokens.min(room));
        Ok(Cutting {
            mode: self.mode.clone(),
            max_tokens,
            overlap: self.overlap.of(max_tokens),
        })
    }
}

impl Overlap {
    /// The overlap in passages of at most so many tokens; at most a half of them.
    pub fn of(self, tokens: usize) -> usize {
        match self {
            Overlap::Share(share) => (tokens as f64 * share) as usize,
            Overlap::Tokens(overlap) => overlap.min(tokens / 2),
        }
    }
}

impl TextOptions {
    /// Takes the keys about texts out of `runtime_params`; returns what is left for the model. `source` is the column with
    /// the text. What is no JSON object is left as it is, for the model's options to refuse.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn take(
        params: Option<&str>,
        source: &str,
        has_passages: bool,
    ) -> Result<(TextOptions, Option<String>), String> {
        let Some(Ok(Value::Object(mut object))) = params.map(serde_json::from_str) else {
            return Ok((TextOptions::default(), params.map(str::to_owned)));
        };
        if let Some((key, meant)) = misspelled(&object) {
            return Err(format!(
                "the key {key:?} is not known; did you mean {meant}?"
            ));
        }
        let mut taken = Map::new();
        for key in KEYS {
            if let Some(value) = object.remove(key).filter(|value| !value.is_null()) {
                taken.insert(key.to_owned(), value);
            }
        }
        if taken.is_empty() {
            return Ok((TextOptions::default(), params.map(str::to_owned)));
        }
        let of_passages = taken.keys().find(|key| *key != "template");
        if let Some(key) = of_passages.filter(|_| !has_passages) {
            return Err(format!(
                "{key} is about passages, and the job has no chunk_table; set chunk_table or remove {key}"
            ));
        }
        let options = TextOptions {
            template: text(&taken, "template")?
                .map(|template| Template::parse(template, source))
                .transpose()?,
            passages: passages(&taken)?,
        };
        let rest = (!object.is_empty()).then(|| Value::Object(object).to_string());
        Ok((options, rest))
    }
}

/// A key that models do not have either, and the one of ours that was meant. Models know only their own.
fn misspelled(object: &Map<String, Value>) -> Option<(&str, &'static str)> {
    let is_of_models = |key: &str| {
        let mut keys = ModelOptions::KEYS.iter().chain(RemoteOptions::KEYS);
        keys.any(|known| *known == key)
    };
    let keys = object.keys().map(String::as_str);
    keys.filter(|key| !KEYS.contains(key) && !is_of_models(key))
        .find_map(|key| Some((key, most_similar(key, KEYS)?)))
}

fn passages(taken: &Map<String, Value>) -> Result<PassageOptions, String> {
    let default = PassageOptions::default();
    let tokens = number(taken, "chunk_tokens", MIN_TOKENS as u64, 1 << 20)?;
    let bytes = number(taken, "max_document_bytes", 1, MAX_DOCUMENT_BYTES)?;
    Ok(PassageOptions {
        tokens,
        overlap: overlap(taken)?.unwrap_or(default.overlap),
        mode: mode(taken)?.unwrap_or(default.mode),
        max_document_bytes: bytes.unwrap_or(default.max_document_bytes),
    })
}

fn mode(taken: &Map<String, Value>) -> Result<Option<String>, String> {
    let Some(mode) = text(taken, "chunk_mode")? else {
        return Ok(None);
    };
    let mode = mode.parse::<Mode>();
    mode.map(|mode| Some(mode.to_string()))
        .map_err(|error| format!("chunk_mode: {error}"))
}

/// `"10%"`, a number below 1 as a share, or a number of tokens.
fn overlap(taken: &Map<String, Value>) -> Result<Option<Overlap>, String> {
    let Some(value) = taken.get("chunk_overlap") else {
        return Ok(None);
    };
    let percent = value
        .as_str()
        .and_then(|text| text.trim().strip_suffix('%'));
    let share = match percent {
        Some(percent) => percent
            .trim()
            .parse::<f64>()
            .ok()
            .map(|percent| percent / 100.0),
        None => value.as_f64().filter(|share| share.fract() != 0.0),
    };
    let tokens = value
        .as_u64()
        .and_then(|tokens| usize::try_from(tokens).ok());
    match (share, tokens) {
        (Some(share), _) if (0.0..=0.5).contains(&share) => Ok(Some(Overlap::Share(share))),
        (None, Some(tokens)) => Ok(Some(Overlap::Tokens(tokens))),
        _ => Err(format!(
            "chunk_overlap is {value}, but must be a share of a passage up to \"50%\", or a number of tokens"
        )),
    }
}

fn text<'a>(taken: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    taken.get(key).map_or(Ok(None), |value| {
        let text = value.as_str().map(Some);
        text.ok_or_else(|| format!("{key} is {value}, but must be a text"))
    })
}

fn number(
    taken: &Map<String, Value>,
    key: &str,
    least: u64,
    most: u64,
) -> Result<Option<usize>, String> {
    let Some(value) = taken.get(key) else {
        return Ok(None);
    };
    let number = value
        .as_u64()
        .filter(|number| (least..=most).contains(number));
    let number = number.and_then(|number| usize::try_from(number).ok());
    number
        .map(Some)
        .ok_or_else(|| format!("{key} is {value}, but must be a number from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_model_are_left() {
        let params =
            r#"{"pooling": "cls", "template": "{title}\n{chunk}", "chunk_overlap": "20%"}"#;
        let (options, rest) = TextOptions::take(Some(params), "body", true).unwrap();
        assert_eq!(rest.as_deref(), Some(r#"{"pooling":"cls"}"#));
        assert_eq!(options.passages.overlap, Overlap::Share(0.2));
        assert_eq!(options.template.unwrap().columns(), ["title"]);
        for params in [None, Some("[]"), Some(r#"{"pooling": "cls"}"#)] {
            let (options, rest) = TextOptions::take(params, "body", false).unwrap();
            assert_eq!((options, rest.as_deref()), (TextOptions::default(), params));
        }
    }

    #[test]
    fn a_misspelled_key_of_texts_is_told() {
        for (key, meant) in [
            ("chunk_token", "chunk_tokens"),
            ("chunkoverlap", "chunk_overlap"),
            ("Template", "template"),
        ] {
            let params = format!("{{\"{key}\": 1}}");
            let refused = TextOptions::take(Some(&params), "body", true).unwrap_err();
            assert!(
                refused.ends_with(&format!("did you mean {meant}?")),
                "{refused}"
            );
        }
        for key in ModelOptions::KEYS.iter().chain(RemoteOptions::KEYS) {
            let params = format!("{{\"{key}\": 1}}");
            let left = TextOptions::take(Some(&params), "body", true).unwrap();
            assert_eq!(left.1, Some(params));
        }
    }

    #[test]
    fn a_template_that_leaves_no_room_for_a_passage_is_refused() {
        assert_eq!(room_beside_template(30, 22, "m"), Ok(8));
        let refused = room_beside_template(30, 23, "m").unwrap_err();
        assert!(refused.contains("shorten the template"), "{refused}");
        assert!(room_beside_template(30, 900, "m").is_err());
        // A long prompt is the model's affair.
        assert_eq!(room_beside_template(4, 0, "m"), Ok(4));
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_refused_by_its_key() {
        for (key, value) in [
            ("chunk_tokens", "0"),
            ("chunk_tokens", "\"many\""),
            ("chunk_overlap", "\"90%\""),
            ("chunk_overlap", "-1"),
            ("chunk_mode", "1"),
            ("template", "\"{title}\""),
            ("max_document_bytes", "0"),
        ] {
            let params = format!("{{\"{key}\": {value}}}");
            let refused = TextOptions::take(Some(&params), "body", true).unwrap_err();
            assert!(refused.contains(key), "{params}: {refused}");
        }
        let refused = TextOptions::take(Some(r#"{"chunk_tokens": 128}"#), "body", false);
        assert!(refused.unwrap_err().contains("chunk_table"));
    }
}
