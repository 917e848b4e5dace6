//! Where the hub is, who asks, and where its cache is: the variables that `huggingface_hub` documents ("Environment
//! variables").

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach the hub, and where models from it are kept.
#[derive(Clone, Default)]
pub struct HubSettings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub(super) endpoint: String,
    /// `HF_TOKEN`, or what `hf auth login` has stored.
    pub(super) token: Option<Token>,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: how long a server may send nothing.
    pub(super) stall_timeout: Duration,
    /// The user's cache, which is searched; it need not exist.
    cache: Option<PathBuf>,
    /// Whether the user has chosen that cache, so that downloads go there.
    is_cache_chosen: bool,
    /// `HF_HUB_OFFLINE`.
    is_offline: bool,
}

/// A secret. Its debug output does not show it.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// The token, to be sent.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("cache", &self.cache)
            .field("is_offline", &self.is_offline)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    /// Reads the environment of this process. Reads a file too: the token of `hf auth login`.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| {
            let value = variable(name)?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let user_cache = || {
            let home = || set("HOME").map(|home| Path::new(&home).join(".cache"));
            set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)
        };
        let chosen_home = set("HF_HOME").map(PathBuf::from);
        let chosen = set("HF_HUB_CACHE")
            .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
            .map(PathBuf::from)
            .or_else(|| chosen_home.as_ref().map(|home| home.join("hub")));
        let home = chosen_home.or_else(|| user_cache().map(|cache| cache.join("huggingface")));
        let token_file = set("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join("token")));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        let seconds = set("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN")
                .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| stored_token(&token_file?))
                .map(Token),
            stall_timeout: seconds.map_or(DEFAULT_STALL_TIMEOUT, Duration::from_secs),
            is_cache_chosen: chosen.is_some(),
            cache: chosen.or_else(|| home.map(|home| home.join("hub"))),
            is_offline: set("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
        }
    }

    /// Whether `HF_HUB_OFFLINE` forbids downloads.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.is_offline
    }

    /// The user's own cache of the hub, which other tools fill: `HF_HUB_CACHE`, `HF_HOME/hub` or
    /// `~/.cache/huggingface/hub`.
    #[must_use]
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// The folder for downloads, in the layout of that cache: the cache if a variable names it, else none, so that
    /// they go to the model folder.
    #[must_use]
    pub fn download_folder(&self) -> Option<&Path> {
        self.cache().filter(|_| self.is_cache_chosen)
    }
}

fn stored_token(path: &Path) -> Option<String> {
    let token = std::fs::read_to_string(path).ok()?;
    let token = token.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// The values that `huggingface_hub` takes for true.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        HubSettings::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn downloads_go_to_a_cache_that_the_user_has_chosen_and_others_are_only_searched() {
        let default = settings(&[("HOME", "/home/ann")]);
        let cache = Path::new("/home/ann/.cache/huggingface/hub");
        assert_eq!(
            (default.cache(), default.download_folder()),
            (Some(cache), None)
        );
        for (variables, folder) in [
            (&[("HF_HOME", "/hf")][..], "/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/cache")], "/cache"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
        ] {
            let chosen = settings(variables);
            assert_eq!(chosen.download_folder(), Some(Path::new(folder)));
            assert_eq!(chosen.cache(), chosen.download_folder());
        }
        let moved = settings(&[("HOME", "/home/ann"), ("XDG_CACHE_HOME", "/var/cache")]);
        assert_eq!(moved.cache(), Some(Path::new("/var/cache/huggingface/hub")));
        assert_eq!(settings(&[]).cache(), None);
    }

    #[test]
    fn the_token_is_read_from_the_variable_or_the_file_and_is_not_shown() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_stored\n").unwrap();
        let home = home.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| {
            let settings = settings(variables);
            assert!(!format!("{settings:?}").contains("hf_"), "{settings:?}");
            settings.token.map(|token| token.expose().to_owned())
        };
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_stored"));
        let both = [("HF_HOME", home), ("HF_TOKEN", "hf_own")];
        assert_eq!(token(&both).as_deref(), Some("hf_own"));
        assert_eq!(token(&[("HF_TOKEN", " ")]), None);
    }

    #[test]
    fn the_words_for_offline_are_those_of_the_hub() {
        for (value, expected) in [("1", true), ("YES", true), ("0", false), ("", false)] {
            let settings = settings(&[("HF_HUB_OFFLINE", value)]);
            assert_eq!(settings.is_offline(), expected, "{value:?}");
        }
        let mirror = settings(&[("HF_ENDPOINT", "http://localhost:9/hub/")]);
        assert_eq!(mirror.endpoint, "http://localhost:9/hub");
    }
}
