//! Addresses of servers: which a row may name, and where a key may travel.

use std::net::IpAddr;

use reqwest::Url;
use serde_json::{Map, Value};

use super::provider::Facts;
use crate::embedding::options::{InvalidOptions, value, wrong_type};

/// The most servers of a job.
const MAX_SERVERS: usize = 64;

/// `base_url`: one server, or a list. `None` if the row names none.
pub(super) fn servers(object: &Map<String, Value>) -> Result<Option<Vec<Url>>, InvalidOptions> {
    let named: Vec<&Value> = match value(object, "base_url") {
        None => return Ok(None),
        Some(Value::Array(list)) => list.iter().collect(),
        Some(one) => vec![one],
    };
    if named.is_empty() || named.len() > MAX_SERVERS {
        return Err(InvalidOptions(format!(
            "base_url is a list of {} servers, but must have 1 to {MAX_SERVERS}",
            named.len()
        )));
    }
    let mut servers = Vec::with_capacity(named.len());
    for name in named {
        let Value::String(name) = name else {
            return Err(wrong_type("base_url", name, "a URL, or a list of URLs"));
        };
        let server = parse(name)?;
        if servers.contains(&server) {
            return Err(InvalidOptions(format!(
                "base_url names {server} twice; remove one"
            )));
        }
        servers.push(server);
    }
    Ok(Some(servers))
}

/// A URL without what is secret in one, and without slashes at its end.
pub(super) fn parse(text: &str) -> Result<Url, InvalidOptions> {
    // The text itself is not repeated: it may have a password.
    let url = Url::parse(text.trim());
    let url = url
        .ok()
        .filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
    let Some(mut url) = url else {
        return Err(InvalidOptions(
            "base_url is not a URL such as https://api.openai.com/v1".into(),
        ));
    };
    let host = url.host_str().unwrap_or_default();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(InvalidOptions(format!(
            "base_url for {host} has a user or password in it; remove them and name the key in api_key_env"
        )));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(InvalidOptions(format!(
            "base_url for {host} has a part behind ? or #; remove it (Azure: use https://NAME.openai.azure.com/openai/v1, \
             which needs no api-version)"
        )));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Where the provider's API is below a `base_url`. Like the official clients, and for those who leave out the path or give
/// all of it.
pub(super) fn endpoint(base: &Url, facts: &Facts) -> Url {
    let wanted: Vec<&str> = facts.path.split('/').collect();
    let given: Vec<&str> = base
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let assumed = usize::from(!given.is_empty() && facts.base_has_version);
    let shared = (1..=wanted.len())
        .rev()
        .find(|length| given.ends_with(&wanted[..*length]))
        .unwrap_or(assumed);
    let path: Vec<&str> = given
        .into_iter()
        .chain(wanted.into_iter().skip(shared))
        .collect();
    let mut url = base.clone();
    // A segment of the base is encoded already.
    url.set_path(&path.join("/"));
    url
}

/// Whether what is sent there can be read only there: over TLS, or on this machine.
pub(super) fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

/// Whether the server is on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The host, and the port if it is not that of the scheme.
pub(super) fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::remote::provider::Provider;

    fn endpoint_of(provider: Provider, base: &str) -> String {
        endpoint(&parse(base).unwrap(), provider.facts()).to_string()
    }

    #[test]
    fn a_path_is_completed_as_the_official_clients_do() {
        use Provider::{Cohere, Ollama, OpenAi};
        for (provider, base, expected) in [
            (
                OpenAi,
                "https://api.openai.com/v1/",
                "https://api.openai.com/v1/embeddings",
            ),
            (
                OpenAi,
                "http://localhost:8080",
                "http://localhost:8080/v1/embeddings",
            ),
            (
                OpenAi,
                "https://a.de/openai/v1",
                "https://a.de/openai/v1/embeddings",
            ),
            (
                OpenAi,
                "https://a.de/v1beta/openai",
                "https://a.de/v1beta/openai/embeddings",
            ),
            (
                OpenAi,
                "https://a.de/v1/embeddings",
                "https://a.de/v1/embeddings",
            ),
            (
                OpenAi,
                "https://a.de/a%2Fb/v1",
                "https://a.de/a%2Fb/v1/embeddings",
            ),
            (
                Cohere,
                "https://api.cohere.com",
                "https://api.cohere.com/v2/embed",
            ),
            (
                Cohere,
                "https://a.de/cohere/v2",
                "https://a.de/cohere/v2/embed",
            ),
            (
                Ollama,
                "http://[::1]:11434/api",
                "http://[::1]:11434/api/embed",
            ),
            (
                Ollama,
                "https://a.de/ollama",
                "https://a.de/ollama/api/embed",
            ),
        ] {
            assert_eq!(endpoint_of(provider, base), expected);
        }
    }

    #[test]
    fn a_key_travels_encrypted_or_not_at_all() {
        for (url, expected) in [
            ("https://example.com", true),
            ("http://example.com", false),
            ("http://127.0.0.1:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:80", true),
            ("http://localhost:11434", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_private(&parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn an_error_never_repeats_what_is_secret() {
        for text in [
            "https://me:secret@a.de",
            "https://a.de/v1?key=secret",
            "ftp://secret",
            "secret",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
