//! Settings with which a job uses a model, in place of what the model's files say.
//!
//! They come as a JSON object: `runtime_params` of the jobs table. This file knows which keys there are and which values
//! they take. Whether a value suits the model at hand is checked when the two meet, in `model.rs`.

use std::num::NonZeroUsize;

use serde_json::{Map, Value};

use super::catalog::similar::most_similar;
use super::pooling::PoolingMode;
use super::role::TextRole;

/// All keys.
const KEYS: [&str; 9] = [
    "pooling",
    "normalize",
    "prompt",
    "prompt_name",
    "task",
    "max_tokens",
    "dimensions",
    "force",
    "long_text",
];

/// What a job asks of a model. The default asks for nothing: then the model's files decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ModelOptions {
    /// How token states become one vector.
    pub(crate) pooling: Option<PoolingMode>,
    /// Whether vectors have length 1.
    pub(crate) normalize: Option<bool>,
    /// What stands before a query.
    pub(crate) query_prompt: Option<Prompt>,
    /// What stands before a document.
    pub(crate) document_prompt: Option<Prompt>,
    /// What queries are for, of a model with tasks.
    pub(crate) query_task: Option<Task>,
    /// What documents are for.
    pub(crate) document_task: Option<Task>,
    /// The longest input in tokens, special tokens included.
    pub(crate) max_tokens: Option<NonZeroUsize>,
    /// Vectors are cut to this length.
    pub(crate) dimensions: Option<NonZeroUsize>,
    /// Vectors are cut even if the model is not known to be made for it.
    pub(crate) force: bool,
    /// What becomes of texts that are longer than the window.
    pub(crate) long_text: LongText,
}

/// A prompt, or the name under which the model's files have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Prompt {
    Text(String),
    Name(String),
}

/// A task of a model, by its name or by the number that its graph takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Task {
    Name(String),
    Number(u32),
}

/// What becomes of a text that is longer than the model's window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) enum LongText {
    /// What is beyond the window does not count.
    #[default]
    Cut,
    /// The vector is the mean of those of overlapping windows.
    Mean,
}

/// Why settings cannot be used, as a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidOptions(pub(super) String);

impl ModelOptions {
    /// The keys of the JSON object.
    pub const KEYS: &'static [&'static str] = &KEYS;

    /// Reads the settings from a JSON object.
    ///
    /// ```
    /// use lantern::embedding::ModelOptions;
    ///
    /// let options = ModelOptions::from_json(r#"{"pooling": "cls", "normalize": true}"#)?;
    /// assert_ne!(options, ModelOptions::default());
    /// let error = ModelOptions::from_json(r#"{"poolin": "cls"}"#).unwrap_err();
    /// assert!(error.to_string().contains("did you mean pooling?"));
    /// # Ok::<(), lantern::embedding::InvalidOptions>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Names the key that is unknown, or has a value of the wrong type or range.
    pub fn from_json(json: &str) -> Result<Self, InvalidOptions> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| InvalidOptions(format!("they are not JSON: {error}")))?;
        let Value::Object(object) = value else {
            return Err(InvalidOptions(
                "they must be an object such as {\"pooling\": \"cls\"}".into(),
            ));
        };
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(unknown_key(key, &KEYS));
        }
        let long_text = match text(&object, "long_text")? {
            None | Some("cut") => LongText::Cut,
            Some("mean") => LongText::Mean,
            Some(other) => return Err(not_one_of("long_text", other, &["cut", "mean"])),
        };
        let options = Self {
            pooling: pooling(&object)?,
            normalize: flag(&object, "normalize")?,
            query_prompt: prompt(&object, TextRole::Query)?,
            document_prompt: prompt(&object, TextRole::Document)?,
            query_task: task(&object, TextRole::Query)?,
            document_task: task(&object, TextRole::Document)?,
            max_tokens: count(&object, "max_tokens")?,
            dimensions: count(&object, "dimensions")?,
            force: flag(&object, "force")?.unwrap_or(false),
            long_text,
        };
        if options.force && options.dimensions.is_none() {
            return Err(InvalidOptions(
                "force allows dimensions that the model is not made for, and there are no dimensions; remove it".into(),
            ));
        }
        Ok(options)
    }
}

pub(super) fn unknown_key(key: &str, known: &[&str]) -> InvalidOptions {
    let meant = most_similar(key, known.iter().copied())
        .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    InvalidOptions(format!(
        "the key {key:?} is not known ({} are){meant}",
        known.join(", ")
    ))
}

pub(super) fn not_one_of(key: &str, value: &str, allowed: &[&str]) -> InvalidOptions {
    let meant = most_similar(value, allowed.iter().copied())
        .map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    InvalidOptions(format!(
        "{key} is {value:?}, but must be one of {}{meant}",
        allowed.join(", ")
    ))
}

pub(super) fn wrong_type(key: &str, value: &Value, expected: &str) -> InvalidOptions {
    InvalidOptions(format!("{key} is {value}, but must be {expected}"))
}

/// The value of a key; `None` for a key that is missing or null.
pub(super) fn value<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

pub(super) fn text<'a>(
    object: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<&'a str>, InvalidOptions> {
    let text = |value: &'a Value| {
        let text = value.as_str();
        text.ok_or_else(|| wrong_type(key, value, "a text"))
    };
    value(object, key).map(text).transpose()
}

fn flag(object: &Map<String, Value>, key: &str) -> Result<Option<bool>, InvalidOptions> {
    let flag = |value: &Value| {
        let flag = value.as_bool();
        flag.ok_or_else(|| wrong_type(key, value, "true or false"))
    };
    value(object, key).map(flag).transpose()
}

pub(super) fn count(
    object: &Map<String, Value>,
    key: &str,
) -> Result<Option<NonZeroUsize>, InvalidOptions> {
    let count = |value: &Value| {
        let number = value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok());
        let number = number.and_then(NonZeroUsize::new);
        number.ok_or_else(|| wrong_type(key, value, "a whole number of at least 1"))
    };
    value(object, key).map(count).transpose()
}

fn pooling(object: &Map<String, Value>) -> Result<Option<PoolingMode>, InvalidOptions> {
    let Some(name) = text(object, "pooling")? else {
        return Ok(None);
    };
    match PoolingMode::from_name(name) {
        Some(mode) => Ok(Some(mode)),
        None => Err(not_one_of("pooling", name, &PoolingMode::NAMES)),
    }
}

/// The prompt of a role, by its text or by its name.
fn prompt(object: &Map<String, Value>, role: TextRole) -> Result<Option<Prompt>, InvalidOptions> {
    let text = of_role(object, "prompt", role)?;
    let name = of_role(object, "prompt_name", role)?;
    match (text, name) {
        (Some(_), Some(_)) => Err(InvalidOptions(format!(
            "prompt and prompt_name both say what stands before a {}; remove one of them",
            role.name()
        ))),
        (Some(text), None) => Ok(Some(Prompt::Text(text.to_owned()))),
        (None, name) => Ok(name.map(|name| Prompt::Name(name.to_owned()))),
    }
}

/// `"…"` for documents, or an object with a text for each role.
pub(super) fn of_role<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    role: TextRole,
) -> Result<Option<&'a str>, InvalidOptions> {
    match value(object, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok((role == TextRole::Document).then_some(text)),
        Some(Value::Object(roles)) => {
            check_roles(key, roles)?;
            let text = self::text(roles, role.name());
            text.map_err(|InvalidOptions(reason)| InvalidOptions(format!("{key}: {reason}")))
        }
        Some(other) => Err(wrong_type(
            key,
            other,
            "a text for documents, or an object with texts for query and document",
        )),
    }
}

/// Refuses what is no role.
fn check_roles(key: &str, roles: &Map<String, Value>) -> Result<(), InvalidOptions> {
    const ROLES: [&str; 2] = ["query", "document"];
    match roles.keys().find(|name| !ROLES.contains(&name.as_str())) {
        None => Ok(()),
        Some(other) => {
            let InvalidOptions(reason) = unknown_key(other, &ROLES);
            Err(InvalidOptions(format!("{key}: {reason}")))
        }
    }
}

/// The task of a role: one for both, or an object with one for each. Unlike a prompt, a task alone is that of queries,
/// too: vectors of two tasks are near to each other only if the model was trained for that.
fn task(object: &Map<String, Value>, role: TextRole) -> Result<Option<Task>, InvalidOptions> {
    let one = |value: &Value| {
        let number = value.as_u64().and_then(|number| number.try_into().ok());
        let name = value.as_str().map(|name| Task::Name(name.to_owned()));
        name.or(number.map(Task::Number)).ok_or_else(|| {
            let expected =
                "the name or the number of a task, or an object with those of query and document";
            wrong_type("task", value, expected)
        })
    };
    match value(object, "task") {
        Some(Value::Object(roles)) => {
            check_roles("task", roles)?;
            value(roles, role.name()).map(one).transpose()
        }
        other => other.map(one).transpose(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> ModelOptions {
        ModelOptions::from_json(json).unwrap()
    }

    fn error(json: &str) -> String {
        ModelOptions::from_json(json).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_read() {
        let text = |text: &str| Some(Prompt::Text(text.into()));
        let number = |number| NonZeroUsize::new(number);
        let options = parse(
            r#"{"pooling": "lasttoken", "normalize": false, "prompt": {"query": "q: ", "document": ""},
            "task": {"query": 0, "document": "separation"}, "max_tokens": 128, "dimensions": 64, "force": true, "long_text": "mean"}"#,
        );
        let expected = ModelOptions {
            pooling: Some(PoolingMode::LastToken),
            normalize: Some(false),
            query_prompt: text("q: "),
            document_prompt: text(""),
            query_task: Some(Task::Number(0)),
            document_task: Some(Task::Name("separation".into())),
            max_tokens: number(128),
            dimensions: number(64),
            force: true,
            long_text: LongText::Mean,
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn a_text_is_the_prompt_of_documents() {
        let options = parse(r#"{"prompt": "passage: ", "prompt_name": {"query": "web"}}"#);
        assert_eq!(
            options.document_prompt,
            Some(Prompt::Text("passage: ".into()))
        );
        assert_eq!(options.query_prompt, Some(Prompt::Name("web".into())));
    }

    #[test]
    fn a_task_alone_is_that_of_both_roles() {
        let options = parse(r#"{"task": "text-matching"}"#);
        let task = Some(Task::Name("text-matching".into()));
        assert_eq!(
            (&options.query_task, &options.document_task),
            (&task, &task)
        );
        let options = parse(r#"{"task": {"query": 3, "document": null}}"#);
        assert_eq!(options.query_task, Some(Task::Number(3)));
        assert_eq!(options.document_task, None);
    }

    #[test]
    fn nothing_and_nulls_ask_for_nothing() {
        let nulls = r#"{"pooling": null, "normalize": null, "prompt": {"query": null}, "long_text": "cut"}"#;
        for json in ["{}", nulls] {
            assert_eq!(parse(json), ModelOptions::default());
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        for (json, words) in [
            ("[", "not JSON"),
            ("[]", "they must be an object"),
            (r#"{"normalise": true}"#, "\"normalise\" is not known"),
            (r#"{"normalise": true}"#, "did you mean normalize?"),
            (r#"{"api_key": "x"}"#, "pooling, normalize, prompt"),
            (r#"{"pooling": "average"}"#, "one of cls, max, mean"),
            (r#"{"pooling": 1}"#, "pooling is 1, but must be a text"),
            (r#"{"normalize": "yes"}"#, "must be true or false"),
            (r#"{"max_tokens": 0}"#, "at least 1"),
            (r#"{"max_tokens": -5}"#, "at least 1"),
            (r#"{"max_tokens": 12.5}"#, "a whole number"),
            (r#"{"dimensions": "64"}"#, "a whole number"),
            (r#"{"long_text": "split"}"#, "one of cut, mean"),
            (
                r#"{"prompt": ["a"]}"#,
                "an object with texts for query and document",
            ),
            (
                r#"{"prompt": {"queries": "a"}}"#,
                "prompt: the key \"queries\"",
            ),
            (
                r#"{"prompt": {"query": 1}}"#,
                "prompt: query is 1, but must be a text",
            ),
            (
                r#"{"prompt": "a", "prompt_name": "b"}"#,
                "before a document; remove one",
            ),
            (r#"{"force": true}"#, "no dimensions"),
            (r#"{"task": -1}"#, "task is -1, but must be the name"),
            (
                r#"{"task": {"query": []}}"#,
                "an object with those of query",
            ),
            (r#"{"task": {"passage": "a"}}"#, "task: the key \"passage\""),
        ] {
            let said = error(json);
            assert!(said.contains(words), "{json}: {said}");
        }
    }
}
