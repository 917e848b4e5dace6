//! What a row says about a model elsewhere: `runtime`, `embedding_model` and `runtime_params`.

use std::num::NonZeroUsize;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use xxhash_rust::xxh3::xxh3_64;

use super::address::{self, is_private};
use super::headers::{self, Header, is_credential};
use super::numbers::{between, duration, price};
use super::provider::Provider;
use super::row::{self, OfRole};
use super::secret::Secret;
use crate::embedding::options::{InvalidOptions, count, not_one_of, text};
use crate::embedding::role::TextRole;

/// The keys of `runtime_params` that decide vectors of documents.
const DECISIVE_KEYS: [&str; 5] = ["model", "dimensions", "input_type", "prompt", "tokenizer"];

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The most requests at the same time.
const MAX_IN_FLIGHT: usize = 1024;

/// How a job embeds texts elsewhere. Valid; its debug output shows no key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteOptions {
    pub(super) provider: Provider,
    servers: Vec<Url>,
    has_default_servers: bool,
    key: Option<Secret>,
    key_variable: Option<String>,
    /// In lowercase.
    pub(super) key_header: String,
    model: String,
    pub(super) dimensions: Option<NonZeroUsize>,
    /// The length that vectors had before, as the caller knows it.
    pub(super) expected: Option<usize>,
    input_type: OfRole,
    prompt: OfRole,
    pub(super) base64: bool,
    pub(super) headers: Vec<Header>,
    pub(super) timeout: Duration,
    max_in_flight: usize,
    max_batch: usize,
    max_batch_tokens: usize,
    /// The bits of a number of dollars.
    price: Option<u64>,
    pub(super) hedge_after: Option<Duration>,
    /// Whether texts that are too long are cut.
    pub(super) cuts: bool,
    tokenizer: Option<String>,
}

/// What makes jobs share limits, connections and turns: the provider, its servers and the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    provider: Provider,
    servers: Vec<Url>,
    key: Option<Secret>,
}

impl RemoteOptions {
    /// The values of `runtime` that mean a model elsewhere.
    pub const RUNTIMES: [&'static str; 4] = ["openai", "cohere", "voyage", "ollama"];

    /// The keys of `runtime_params`.
    pub const KEYS: &'static [&'static str] = &row::KEYS;

    /// Reads `runtime`, `embedding_model`, and `runtime_params` as a JSON object.
    ///
    /// ```
    /// use lantern::embedding::RemoteOptions;
    ///
    /// let parameters = r#"{"base_url": "https://gpu.example.com/v1", "api_key_env": "GPU_KEY"}"#;
    /// let options = RemoteOptions::new("openai", "BAAI/bge-m3", Some(parameters))?;
    /// assert_eq!(options.key_variable(), Some("GPU_KEY"));
    /// # Ok::<(), lantern::embedding::InvalidOptions>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Names the key that is unknown, or has a value of the wrong type or range. Never repeats a secret.
    pub fn new(
        runtime: &str,
        model: &str,
        parameters: Option<&str>,
    ) -> Result<Self, InvalidOptions> {
        let Some(provider) = Provider::from_name(runtime) else {
            return Err(not_one_of("runtime", runtime, &Self::RUNTIMES));
        };
        let object = row::object(parameters)?;
        let facts = provider.facts();
        let named = address::servers(&object)?;
        let has_default_servers = named.is_none();
        let servers = match named {
            Some(servers) => servers,
            None => vec![address::parse(facts.server)?],
        };
        let in_flight = (facts.in_flight * servers.len()).min(MAX_IN_FLIGHT);
        let max_in_flight = between(&object, "max_in_flight", MAX_IN_FLIGHT)?.unwrap_or(in_flight);
        let options = Self {
            provider,
            has_default_servers,
            servers,
            key: None,
            key_variable: row::variable(&object)?,
            key_header: headers::key_header(&object)?,
            model: row::model_name(&object, model)?,
            dimensions: count(&object, "dimensions")?,
            expected: None,
            input_type: row::input_type(&object, provider)?,
            prompt: row::prompt(&object)?,
            base64: row::base64(&object, provider)?,
            headers: headers::headers(&object)?,
            timeout: duration(&object, "timeout")?.unwrap_or(DEFAULT_TIMEOUT),
            max_in_flight,
            max_batch: between(&object, "max_batch", facts.max_inputs)?.unwrap_or(facts.batch),
            max_batch_tokens: between(&object, "max_batch_tokens", facts.max_tokens)?
                .unwrap_or(facts.batch_tokens),
            price: price(&object, "price_per_million")?.map(f64::to_bits),
            hedge_after: duration(&object, "hedge_after")?,
            cuts: row::cuts(&object)?,
            tokenizer: text(&object, "tokenizer")?.map(str::to_owned),
        };
        let key = row::key(&object)?;
        options.check_headers(key.is_some() || options.key_variable.is_some())?;
        match key {
            Some(_) if options.key_variable.is_some() => Err(InvalidOptions(
                "api_key and api_key_env both say what the key is; remove one of them".into(),
            )),
            Some(key) => options.with_key(key),
            None => Ok(options),
        }
    }

    /// Where texts are sent.
    pub fn servers(&self) -> &[Url] {
        &self.servers
    }

    /// Whether the row names no server, so that the provider's own is used.
    pub fn has_default_servers(&self) -> bool {
        self.has_default_servers
    }

    /// The name of the variable with the key (`api_key_env`).
    pub fn key_variable(&self) -> Option<&str> {
        self.key_variable.as_deref()
    }

    /// Whether there is a key.
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The same with this key. Space around it is no part of it: files end with a line feed.
    ///
    /// # Errors
    ///
    /// If the key cannot be sent, or would travel where others can read it.
    pub fn with_key(mut self, key: String) -> Result<Self, InvalidOptions> {
        let key = key.trim();
        if key.is_empty() || HeaderValue::from_str(key).is_err() {
            let name = self.key_variable.as_deref().unwrap_or("api_key");
            return Err(InvalidOptions(format!(
                "the key in {name} is empty or has characters that no key has; set it to the key alone"
            )));
        }
        self.check_private("a key")?;
        self.key = Some(Secret::new(key));
        Ok(self)
    }

    /// The same for a caller whose vectors have this length: vectors of another one are refused.
    pub fn expecting(mut self, dimensions: usize) -> Self {
        self.expected = Some(dimensions);
        self
    }

    /// The model's name for the server.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// `openai`, `cohere`, `voyage` or `ollama`.
    pub fn runtime(&self) -> &'static str {
        self.provider.facts().name
    }

    /// The name of a local model whose tokenizer is that of the model elsewhere.
    pub fn tokenizer(&self) -> Option<&str> {
        self.tokenizer.as_deref()
    }

    /// The most requests at the same time.
    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// The most texts of a request.
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// The most tokens of a request.
    pub fn max_batch_tokens(&self) -> usize {
        self.max_batch_tokens
    }

    /// What a million tokens cost.
    pub fn price_per_million(&self) -> Option<f64> {
        self.price.map(f64::from_bits)
    }

    /// What makes jobs share limits, connections and turns.
    pub fn service_key(&self) -> ServiceKey {
        let mut servers = self.servers.clone();
        servers.sort();
        ServiceKey {
            provider: self.provider,
            servers,
            key: self.key.clone(),
        }
    }

    /// What decides the vectors of this role. **Never change it**: stored vectors would count as stale.
    pub fn identity_of(&self, role: TextRole) -> Vec<String> {
        let dimensions = self.dimensions.map(|number| number.to_string());
        let parts = [
            Some(self.runtime()),
            Some(&self.model),
            dimensions.as_deref(),
            self.input_type(role),
            self.prompt.get(role),
        ];
        // Nothing and an empty text are two things.
        let part = |part: Option<&str>| part.map_or_else(String::new, |text| format!("={text}"));
        // It decides where texts are cut. What comes later is added only where it is set.
        let tokenizer = self.tokenizer().map(|name| format!("tokenizer={name}"));
        parts.into_iter().map(part).chain(tokenizer).collect()
    }

    /// Sixteen hexadecimal digits over what decides the vectors of documents.
    pub fn identity(&self) -> String {
        let mut bytes = Vec::new();
        for part in self.identity_of(TextRole::Document) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        format!("{:016x}", xxh3_64(&bytes))
    }

    /// Whether a key of `runtime_params` decides vectors of documents.
    pub fn decides_vectors(key: &str) -> bool {
        DECISIVE_KEYS.contains(&key)
    }

    pub(super) fn key(&self) -> Option<&Secret> {
        self.key.as_ref()
    }

    pub(super) fn input_type(&self, role: TextRole) -> Option<&str> {
        self.input_type.get(role)
    }

    /// What stands before a text.
    pub(crate) fn prompt(&self, role: TextRole) -> &str {
        self.prompt.get(role).unwrap_or_default()
    }

    fn check_headers(&self, has_key: bool) -> Result<(), InvalidOptions> {
        for (name, _) in &self.headers {
            if has_key && (*name == self.key_header || name == AUTHORIZATION.as_str()) {
                return Err(InvalidOptions(format!(
                    "headers has {name:?}, where the key goes; remove one of them"
                )));
            }
            if is_credential(name) {
                self.check_private(&format!("the header {name:?}"))?;
            }
        }
        match has_key {
            true => self.check_private("a key"),
            false => Ok(()),
        }
    }

    fn check_private(&self, what: &str) -> Result<(), InvalidOptions> {
        match self.servers.iter().find(|server| !is_private(server)) {
            None => Ok(()),
            Some(server) => Err(InvalidOptions(format!(
                "base_url {server} is not encrypted, and {what} would be sent to it in clear text; use https, or a server \
                 on localhost"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> RemoteOptions {
        RemoteOptions::new("openai", "m", Some(json)).unwrap()
    }

    /// Databases hold this value: a different one marks every vector of every user as stale.
    #[test]
    fn the_identity_is_the_same_in_every_version() {
        let json = r#"{"dimensions": 256, "prompt": "passage: "}"#;
        assert_eq!(options(json).identity(), "99d39b0bdef53b76");
    }

    #[test]
    fn what_decides_vectors_is_in_the_identity_and_nothing_else() {
        let plain = options("{}").identity();
        for json in [
            r#"{"model": "n"}"#,
            r#"{"dimensions": 8}"#,
            r#"{"input_type": "document"}"#,
            r#"{"prompt": "passage: "}"#,
            r#"{"prompt": ""}"#,
            r#"{"tokenizer": "a/b"}"#,
        ] {
            assert_ne!(options(json).identity(), plain, "{json}");
        }
        for json in [
            r#"{"base_url": ["https://a.de", "https://b.de"]}"#,
            r#"{"api_key": "key", "headers": {"X": "y"}}"#,
            r#"{"prompt": {"query": "query: "}, "timeout": 3, "price_per_million": 1}"#,
            r#"{"encoding_format": "float", "truncate": "fail", "hedge_after": 1}"#,
        ] {
            assert_eq!(options(json).identity(), plain, "{json}");
        }
    }

    #[test]
    fn jobs_of_one_key_share_a_service_and_others_do_not() {
        let key = |json: &str| options(json).service_key();
        let shared = key(r#"{"base_url": ["https://a.de", "https://b.de"], "api_key": "k"}"#);
        let other_order =
            r#"{"base_url": ["https://b.de", "https://a.de/"], "api_key": "k", "model": "n"}"#;
        assert_eq!(key(other_order), shared);
        assert_ne!(
            key(r#"{"base_url": ["https://a.de", "https://b.de"], "api_key": "l"}"#),
            shared
        );
        assert_ne!(
            key(r#"{"base_url": "https://a.de", "api_key": "k"}"#),
            shared
        );
    }

    #[test]
    fn a_key_replaces_none_and_is_checked() {
        let with_key = |key: &str| options(r#"{"api_key_env": "K"}"#).with_key(key.into());
        assert!(with_key("abc\n").unwrap().has_key());
        for key in ["", " \n", "a\nb", "a\u{0}b"] {
            let error = with_key(key).unwrap_err().to_string();
            assert!(
                error.contains("the key in K is empty or has characters"),
                "{error}"
            );
        }
    }
}
