//! The values of a row: which keys there are, and what each may say.

use serde_json::{Map, Value};

use super::provider::Provider;
use crate::embedding::options::{InvalidOptions, not_one_of, of_role, text, unknown_key, value};
use crate::embedding::role::TextRole;

/// All keys of `runtime_params`.
pub(super) const KEYS: [&str; 18] = [
    "base_url",
    "api_key_env",
    "api_key",
    "api_key_header",
    "model",
    "dimensions",
    "input_type",
    "prompt",
    "encoding_format",
    "headers",
    "timeout",
    "max_in_flight",
    "max_batch",
    "max_batch_tokens",
    "price_per_million",
    "hedge_after",
    "truncate",
    "tokenizer",
];

/// A text for each role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct OfRole {
    pub query: Option<String>,
    pub document: Option<String>,
}

impl OfRole {
    /// The text of this role.
    pub(super) fn get(&self, role: TextRole) -> Option<&str> {
        match role {
            TextRole::Query => self.query.as_deref(),
            TextRole::Document => self.document.as_deref(),
        }
    }
}

/// The object, which has no unknown key.
pub(super) fn object(parameters: Option<&str>) -> Result<Map<String, Value>, InvalidOptions> {
    let Some(json) = parameters else {
        return Ok(Map::new());
    };
    let value = serde_json::from_str(json)
        .map_err(|error| InvalidOptions(format!("they are not JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(InvalidOptions(
            "they must be an object such as {\"base_url\": \"https://gpu.example.com/v1\"}".into(),
        ));
    };
    match object.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(unknown_key(key, &KEYS)),
        None => Ok(object),
    }
}

/// `model`, or else `embedding_model`.
pub(super) fn model_name(
    object: &Map<String, Value>,
    model: &str,
) -> Result<String, InvalidOptions> {
    let name = text(object, "model")?.unwrap_or(model).trim();
    match name {
        "" => Err(InvalidOptions(
            "there is no model; set embedding_model to its name".into(),
        )),
        name => Ok(name.to_owned()),
    }
}

/// `api_key_env`: the name of a variable.
pub(super) fn variable(object: &Map<String, Value>) -> Result<Option<String>, InvalidOptions> {
    match text(object, "api_key_env")?.map(str::trim) {
        Some("") => Err(InvalidOptions(
            "api_key_env is empty, but must be the name of a variable of the daemon's environment"
                .into(),
        )),
        name => Ok(name.map(str::to_owned)),
    }
}

/// `api_key`. The value is not repeated in an error.
pub(super) fn key(object: &Map<String, Value>) -> Result<Option<String>, InvalidOptions> {
    match value(object, "api_key") {
        None => Ok(None),
        Some(Value::String(key)) => Ok(Some(key.clone())),
        Some(_) => Err(InvalidOptions("api_key must be a text".into())),
    }
}

/// `prompt`: what stands before a text.
pub(super) fn prompt(object: &Map<String, Value>) -> Result<OfRole, InvalidOptions> {
    let of = |role| Ok(of_role(object, "prompt", role)?.map(str::to_owned));
    Ok(OfRole {
        query: of(TextRole::Query)?,
        document: of(TextRole::Document)?,
    })
}

/// `input_type`: a text for both roles, or an object with one for each. Else what the provider has for them.
pub(super) fn input_type(
    object: &Map<String, Value>,
    provider: Provider,
) -> Result<OfRole, InvalidOptions> {
    if provider == Provider::Ollama && value(object, "input_type").is_some() {
        return Err(InvalidOptions(
            "ollama has no input_type; set prompt to what the model expects before a text".into(),
        ));
    }
    if let Some(Value::String(both)) = object.get("input_type") {
        return Ok(OfRole {
            query: Some(both.clone()),
            document: Some(both.clone()),
        });
    }
    let query = of_role(object, "input_type", TextRole::Query)?;
    let document = of_role(object, "input_type", TextRole::Document)?;
    let (of_query, of_document) = provider.facts().input_types.unzip();
    let or = |given: Option<&str>, default: Option<&str>| given.or(default).map(str::to_owned);
    Ok(OfRole {
        query: or(query, of_query),
        document: or(document, of_document),
    })
}

/// `encoding_format`: whether vectors come as base64.
pub(super) fn base64(
    object: &Map<String, Value>,
    provider: Provider,
) -> Result<bool, InvalidOptions> {
    let facts = provider.facts();
    match text(object, "encoding_format")? {
        None => Ok(facts.base64),
        Some("float") => Ok(false),
        Some("base64") if facts.has_base64 => Ok(true),
        Some("base64") => Err(InvalidOptions(format!(
            "encoding_format is base64, which {} does not have; remove it",
            facts.name
        ))),
        Some(other) => Err(not_one_of("encoding_format", other, &["float", "base64"])),
    }
}

/// `truncate`: whether texts that are too long are cut.
pub(super) fn cuts(object: &Map<String, Value>) -> Result<bool, InvalidOptions> {
    match text(object, "truncate")? {
        None | Some("cut") => Ok(true),
        Some("fail") => Ok(false),
        Some(other) => Err(not_one_of("truncate", other, &["cut", "fail"])),
    }
}

#[cfg(test)]
mod tests {
    use crate::embedding::remote::RemoteOptions;
    use crate::embedding::role::TextRole;

    fn parse(runtime: &str, json: &str) -> RemoteOptions {
        RemoteOptions::new(runtime, "m", Some(json)).unwrap()
    }

    fn error(runtime: &str, json: &str) -> String {
        let error = RemoteOptions::new(runtime, "m", Some(json)).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_row_without_parameters_uses_the_provider_itself() {
        let options = RemoteOptions::new("openai", "text-embedding-3-small", None).unwrap();
        assert!(options.has_default_servers() && !options.has_key());
        assert_eq!(options.servers()[0].as_str(), "https://api.openai.com/v1");
        assert_eq!(options.model(), "text-embedding-3-small");
        for runtime in RemoteOptions::RUNTIMES {
            assert_eq!(parse(runtime, "{}").runtime(), runtime);
        }
    }

    #[test]
    fn input_types_are_those_of_the_provider_unless_the_row_has_others() {
        let types = |runtime: &str, json: &str| {
            let options = parse(runtime, json);
            [TextRole::Query, TextRole::Document]
                .map(|role| options.input_type(role).map(str::to_owned))
        };
        let both =
            |query: &str, document: &str| [Some(query.to_owned()), Some(document.to_owned())];
        assert_eq!(types("openai", "{}"), [None, None]);
        assert_eq!(
            types("cohere", "{}"),
            both("search_query", "search_document")
        );
        let classification = r#"{"input_type": "classification"}"#;
        assert_eq!(
            types("cohere", classification),
            both("classification", "classification")
        );
        let one = r#"{"input_type": {"query": "other"}}"#;
        assert_eq!(types("voyage", one), both("other", "document"));
    }

    #[test]
    fn more_servers_take_more_requests_and_a_row_may_say_how_many() {
        let two = r#"{"base_url": ["https://a.de/v1", "https://b.de/v1/"]}"#;
        assert_eq!(parse("openai", two).max_in_flight(), 16);
        let options = parse(
            "openai",
            r#"{"max_in_flight": 3, "max_batch": 7, "max_batch_tokens": 999, "price_per_million": 0.02}"#,
        );
        assert_eq!((options.max_in_flight(), options.max_batch()), (3, 7));
        assert_eq!(options.max_batch_tokens(), 999);
        assert_eq!(options.price_per_million(), Some(0.02));
    }

    #[test]
    fn what_is_wrong_is_named_with_the_remedy() {
        for (runtime, json, words) in [
            ("opanai", "{}", "did you mean openai?"),
            ("openai", "[", "not JSON"),
            ("openai", "[]", "they must be an object"),
            ("openai", r#"{"base_ur": "x"}"#, "did you mean base_url?"),
            ("openai", r#"{"base_url": []}"#, "must have 1 to 64"),
            ("openai", r#"{"base_url": 1}"#, "a URL, or a list of URLs"),
            (
                "openai",
                r#"{"base_url": "api.openai.com"}"#,
                "not a URL such as",
            ),
            (
                "openai",
                r#"{"base_url": "https://u:p@a.de"}"#,
                "name the key in api_key_env",
            ),
            (
                "openai",
                r#"{"base_url": "https://a.de?api-version=1"}"#,
                "/openai/v1",
            ),
            (
                "openai",
                r#"{"base_url": ["https://a.de", "https://a.de/"]}"#,
                "twice; remove one",
            ),
            (
                "openai",
                r#"{"base_url": "http://a.de", "api_key": "k"}"#,
                "use https",
            ),
            (
                "openai",
                r#"{"base_url": "http://a.de", "api_key_env": "K"}"#,
                "use https",
            ),
            (
                "openai",
                r#"{"base_url": "http://a.de", "headers": {"X-Token": "k"}}"#,
                "use https",
            ),
            (
                "openai",
                r#"{"api_key": "a", "api_key_env": "B"}"#,
                "remove one of them",
            ),
            (
                "openai",
                r#"{"api_key_env": " "}"#,
                "the name of a variable",
            ),
            ("openai", r#"{"api_key": ""}"#, "api_key is empty"),
            ("openai", r#"{"api_key_header": "host"}"#, "such as api-key"),
            (
                "openai",
                r#"{"api_key_header": "a b"}"#,
                "no name of a header",
            ),
            ("openai", r#"{"headers": []}"#, "must be an object"),
            (
                "openai",
                r#"{"headers": {"Content-Length": "1"}}"#,
                "sets itself",
            ),
            ("openai", r#"{"headers": {"X": 1}}"#, "must be a text"),
            (
                "openai",
                r#"{"headers": {"Authorization": "x"}, "api_key_env": "K"}"#,
                "remove one of them",
            ),
            (
                "openai",
                r#"{"headers": {"Authorization": "x"}, "api_key": "K"}"#,
                "remove one of them",
            ),
        ] {
            let said = error(runtime, json);
            assert!(said.contains(words), "{json}: {said}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_named_with_the_range() {
        for (runtime, json, words) in [
            ("openai", r#"{"model": ""}"#, "set embedding_model"),
            ("openai", r#"{"dimensions": 0}"#, "at least 1"),
            (
                "openai",
                r#"{"encoding_format": "hex"}"#,
                "one of float, base64",
            ),
            (
                "ollama",
                r#"{"encoding_format": "base64"}"#,
                "ollama does not have",
            ),
            (
                "ollama",
                r#"{"input_type": "query"}"#,
                "ollama has no input_type",
            ),
            ("openai", r#"{"max_batch": 2049}"#, "from 1 to 2048"),
            ("cohere", r#"{"max_batch": 97}"#, "from 1 to 96"),
            (
                "openai",
                r#"{"max_batch_tokens": 300001}"#,
                "from 1 to 300000",
            ),
            ("openai", r#"{"max_in_flight": 5000}"#, "from 1 to 1024"),
            ("openai", r#"{"price_per_million": -1}"#, "not negative"),
            ("openai", r#"{"timeout": "soon"}"#, "such as \"30s\""),
            ("openai", r#"{"truncate": "end"}"#, "one of cut, fail"),
            (
                "openai",
                r#"{"prompt": {"queries": ""}}"#,
                "prompt: the key",
            ),
        ] {
            let said = error(runtime, json);
            assert!(said.contains(words), "{json}: {said}");
        }
    }

    #[test]
    fn no_message_has_a_secret_of_the_row() {
        for json in [
            r#"{"api_key": ["tell-tale"]}"#,
            r#"{"api_key": "tell-tale\u0000"}"#,
            r#"{"headers": "tell-tale"}"#,
            r#"{"headers": {"X-Key": ["tell-tale"]}}"#,
            r#"{"headers": {"X-Key": "tell-tale\n"}}"#,
            r#"{"base_url": "https://me:tell-tale@a.de"}"#,
            r#"{"base_url": "http://a.de", "api_key": "tell-tale"}"#,
        ] {
            let said = error("openai", json);
            assert!(!said.contains("tell-tale"), "{said}");
        }
    }
}
