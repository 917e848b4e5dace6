//! Model names as users write them in the jobs table.
//!
//! A name becomes a path below the model folder, so [`ModelName`] admits only names that cannot leave that folder. The
//! names that the older trigger-based daemon used are resolved here, so the rest of the code knows one name for each
//! model.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::known;

/// Maximum length of a name in bytes. A path component may have 255 (`NAME_MAX`).
const MAX_LENGTH: usize = 200;

/// A validated, canonical model name: `organization/name` or `name`.
///
/// Parsing resolves the aliases that [`super::ModelCatalog::entries`] lists. No value of this type contains `..`, an
/// absolute path, a backslash or a second slash.
#[derive(Debug, Clone)]
pub struct ModelName {
    canonical: Arc<str>,
    /// As the user wrote it, for messages. Two names of one model are equal.
    written: Arc<str>,
}

/// The error for a string that is not a model name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a model name: write `organization/name` or `name`, each of letters, digits, dots, hyphens and \
     underscores, and neither starting with a dot"
)]
pub struct ModelNameError {
    name: String,
}

impl ModelName {
    /// The model that `make setup` downloads.
    pub const DEFAULT: &'static str = "sentence-transformers/all-MiniLM-L6-v2";

    /// The canonical name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// The name as it was written; with the canonical one, if that is another.
    #[must_use]
    pub fn as_written(&self) -> String {
        if self.written == self.canonical {
            self.written.to_string()
        } else {
            format!("{} ({})", self.written, self.canonical)
        }
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let name = name.trim();
        let well_formed = name.len() <= MAX_LENGTH
            && name.split('/').count() <= 2
            && name.split('/').all(is_segment);
        if !well_formed {
            return Err(ModelNameError {
                name: name.chars().take(MAX_LENGTH).collect(),
            });
        }
        Ok(Self {
            canonical: known::canonical(name).into(),
            written: name.into(),
        })
    }
}

/// Whether a segment is a plain file name. A leading dot is rejected altogether: it would admit `.` and `..`, and
/// models are not in hidden folders.
fn is_segment(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(allowed)
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical)
    }
}

impl PartialEq for ModelName {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for ModelName {}

impl Hash for ModelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical.hash(state);
    }
}

impl PartialOrd for ModelName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ModelName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical.cmp(&other.canonical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_used_by_the_older_daemon_resolve_to_the_published_ones() {
        let canonical = |name: &str| name.parse::<ModelName>().unwrap().to_string();
        assert_eq!(
            canonical("microsoft/all-MiniLM-L12-v2"),
            "sentence-transformers/all-MiniLM-L12-v2"
        );
        assert_eq!(
            canonical("microsoft/all-mpnet-base-v2"),
            "sentence-transformers/all-mpnet-base-v2"
        );
        assert_eq!(
            canonical("transformers/multi-qa-mpnet-base-dot-v1"),
            "sentence-transformers/multi-qa-mpnet-base-dot-v1"
        );
        assert_eq!(canonical("all-MiniLM-L6-v2"), ModelName::DEFAULT);
        assert_eq!(canonical(" acme/own_model.v1 "), "acme/own_model.v1");
    }

    #[test]
    fn a_message_has_the_name_as_it_was_written() {
        let name = |name: &str| name.parse::<ModelName>().unwrap();
        let alias = name("microsoft/all-MiniLM-L12-v2");
        assert_eq!(
            alias.as_written(),
            "microsoft/all-MiniLM-L12-v2 (sentence-transformers/all-MiniLM-L12-v2)"
        );
        assert_eq!(alias, name("sentence-transformers/all-MiniLM-L12-v2"));
        assert_eq!(name("acme/own").as_written(), "acme/own");
    }

    #[test]
    fn no_name_leaves_the_model_folder() {
        for name in [
            "",
            "..",
            ".",
            "/etc",
            "a/..",
            "../a",
            "a/../b",
            "a/b/c",
            "a//b",
            "a/",
            "/a",
            "a\\b",
            "C:\\a",
            "a b",
            "a\0b",
            ".hidden/a",
            "ä/b",
            "a/b\n; DROP",
        ] {
            assert!(name.parse::<ModelName>().is_err(), "{name:?} was accepted");
        }
        assert!("a".repeat(201).parse::<ModelName>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_name_that_parses_has_at_most_two_plain_components(name in "[a-zA-Z0-9./\\\\_-]{0,12}") {
            if let Ok(name) = name.parse::<ModelName>() {
                let path = std::path::Path::new(name.as_str());
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                assert!(path.components().all(plain) && path.components().count() <= 2);
            }
        }
    }
}
