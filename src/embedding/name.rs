//! Model names as users write them in the jobs table and on the command line.
//!
//! ```text
//!  organization/name [@revision] [:file]
//!  BAAI/bge-small-en-v1.5@main:onnx/model_quantized.onnx
//! ```
//!
//! A name becomes a path below the model folder, so [`ModelName`] admits only names that cannot leave that folder. The
//! names that the older trigger-based daemon used are resolved here, so the rest of the code knows one name for each
//! model.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::catalog::known;

/// Maximum length of each part of a name in bytes. A path component may have 255 (`NAME_MAX`).
const MAX_LENGTH: usize = 200;

/// The ending of a graph's file.
const GRAPH_ENDING: &str = ".onnx";

/// A validated, canonical model name: `organization/name` or `name`, with `@revision` and `:file` behind it if one of
/// several versions or graphs is meant.
///
/// Parsing resolves the aliases that [`super::ModelCatalog::entries`] lists. No value that was parsed contains `..`, an
/// absolute path or a backslash. A folder is a name only where [`ModelName::from_operator`] made it one.
#[derive(Debug, Clone)]
pub struct ModelName {
    canonical: Arc<str>,
    /// As the user wrote it, for messages. Two names of one model are equal.
    written: Arc<str>,
    parts: Arc<Parts>,
}

/// What a name consists of.
#[derive(Debug)]
struct Parts {
    /// `organization/name`, or a path.
    repository: String,
    is_path: bool,
    revision: Option<String>,
    file: Option<String>,
}

/// The error for a string that is not a model name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a model name: {reason}")]
pub struct ModelNameError {
    name: String,
    reason: &'static str,
}

const NOT_A_NAME: &str = "write `organization/name` or `name`, each of letters, digits, dots, hyphens and underscores, \
                          and neither starting with a dot";
const NOT_A_REVISION: &str = "behind the @ write a branch, a tag or a commit, of letters, digits, dots, hyphens, \
                              underscores and slashes";
const NOT_A_FILE: &str = "behind the colon write the path of a graph in the model's folder, such as \
                          `onnx/model_quantized.onnx`";
const IS_A_PATH: &str = "a job names a model below the model folder, not a path; put the folder or a link to it there, \
                         as `organization/name`";

impl ModelName {
    /// The model that `make setup` downloads.
    pub const DEFAULT: &'static str = "sentence-transformers/all-MiniLM-L6-v2";

    /// The canonical name, with its revision and file.
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

    /// The name without revision and file: `organization/name`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.parts.repository
    }

    /// The branch, tag or commit, if the name has one.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.parts.revision.as_deref()
    }

    /// The graph by its path from the model's folder, if the name has one.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.parts.file.as_deref()
    }

    /// The repository that the model is downloaded from: its own, or the one that has its export. A revision or a file is
    /// one of its own.
    pub(crate) fn download_repository(&self) -> &str {
        let source = known::source_repository(self.repository());
        let is_plain = self.revision().is_none() && self.file().is_none();
        source.filter(|_| is_plain).unwrap_or(self.repository())
    }

    /// The folder that a person has named in place of a model.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.parts.is_path.then(|| Path::new(self.repository()))
    }

    /// Parses a name that comes from the operator's own command line. There a folder may stand in its place: an absolute
    /// path, or one that begins with `./` or `../`, with `:file` behind it if it has several graphs.
    ///
    /// # Errors
    ///
    /// If it is neither a name nor such a path.
    pub fn from_operator(text: &str) -> Result<Self, ModelNameError> {
        let text = text.trim();
        if !is_path(text) {
            return text.parse();
        }
        let (path, file) = match text.rsplit_once(':') {
            Some((path, file)) if file.ends_with(GRAPH_ENDING) => (path, Some(file)),
            _ => (text, None),
        };
        if file.is_some_and(|file| !is_file(file)) {
            return Err(ModelNameError::new(text, NOT_A_FILE));
        }
        Ok(Self::from_parts(
            text,
            Parts {
                repository: path.to_owned(),
                is_path: true,
                revision: None,
                file: file.map(str::to_owned),
            },
        ))
    }

    fn from_parts(written: &str, parts: Parts) -> Self {
        let mut canonical = parts.repository.clone();
        for (sign, part) in [('@', &parts.revision), (':', &parts.file)] {
            if let Some(part) = part {
                canonical.push(sign);
                canonical.push_str(part);
            }
        }
        Self {
            canonical: canonical.into(),
            written: written.into(),
            parts: Arc::new(parts),
        }
    }
}

impl ModelNameError {
    fn new(name: &str, reason: &'static str) -> Self {
        let name = name.chars().take(MAX_LENGTH).collect();
        Self { name, reason }
    }
}

impl FromStr for ModelName {
    type Err = ModelNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let name = name.trim();
        let refused = |reason| Err(ModelNameError::new(name, reason));
        let (rest, file) = split(name, ':');
        let (repository, revision) = split(rest, '@');
        if is_path(name) {
            return refused(IS_A_PATH);
        }
        if !are_segments(repository) || repository.split('/').count() > 2 {
            return refused(NOT_A_NAME);
        }
        if revision.is_some_and(|revision| !are_segments(revision)) {
            return refused(NOT_A_REVISION);
        }
        if file.is_some_and(|file| !is_file(file)) {
            return refused(NOT_A_FILE);
        }
        Ok(Self::from_parts(
            name,
            Parts {
                repository: known::canonical(repository).to_owned(),
                is_path: false,
                revision: revision.map(str::to_owned),
                file: file.map(str::to_owned),
            },
        ))
    }
}

fn split(text: &str, sign: char) -> (&str, Option<&str>) {
    match text.split_once(sign) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Whether a text is the path of a folder rather than a name.
fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.starts_with("./") || text.starts_with("../")
}

/// Whether these are segments with slashes between them, and not too long.
fn are_segments(path: &str) -> bool {
    path.len() <= MAX_LENGTH && path.split('/').all(is_segment)
}

fn is_file(path: &str) -> bool {
    are_segments(path) && path.ends_with(GRAPH_ENDING)
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
            "a/b@",
            "a/b@..",
            "a/b@../c",
            "a/b@/etc",
            "a/b@v1@v2",
            "a/b@v 1",
            "a/b:",
            "a/b:model.bin",
            "a/b:../model.onnx",
            "a/b:/etc/model.onnx",
            "a/b:onnx//model.onnx",
            "a/b:onnx\\model.onnx",
            "a/b:.hidden.onnx",
            "a/b:c:model.onnx",
            "a/b:model.onnx@v1",
            "./a/b",
            "../a",
        ] {
            assert!(name.parse::<ModelName>().is_err(), "{name:?} was accepted");
        }
        assert!("a".repeat(201).parse::<ModelName>().is_err());
    }

    #[test]
    fn a_revision_and_a_file_follow_the_name() {
        let name: ModelName = "all-MiniLM-L6-v2@refs/pr/21:onnx/model_O4.onnx"
            .parse()
            .unwrap();
        assert_eq!(name.repository(), ModelName::DEFAULT);
        assert_eq!(name.revision(), Some("refs/pr/21"));
        assert_eq!(name.file(), Some("onnx/model_O4.onnx"));
        assert_eq!(
            name.as_str(),
            "sentence-transformers/all-MiniLM-L6-v2@refs/pr/21:onnx/model_O4.onnx"
        );
        let plain: ModelName = ModelName::DEFAULT.parse().unwrap();
        assert_ne!(name, plain);
        assert_eq!((plain.revision(), plain.file()), (None, None));
        assert_eq!(plain.as_str(), plain.repository());
    }

    #[test]
    fn a_model_is_downloaded_from_its_source_unless_the_name_says_more() {
        let from = |name: &str| {
            name.parse::<ModelName>()
                .unwrap()
                .download_repository()
                .to_owned()
        };
        assert_eq!(from("BAAI/bge-base-en"), "Qdrant/fast-bge-base-en");
        assert_eq!(from("BAAI/bge-base-en@main"), "BAAI/bge-base-en");
        assert_eq!(from("BAAI/bge-base-en:model.onnx"), "BAAI/bge-base-en");
        assert_eq!(from("acme/own"), "acme/own");
    }

    #[test]
    fn a_folder_is_a_name_on_the_command_line_and_nowhere_else() {
        for path in ["/models/own", "./own", "../own", "/a b/c:d"] {
            let name = ModelName::from_operator(path).unwrap();
            assert_eq!(name.path(), Some(Path::new(path)));
            let sentence = path.parse::<ModelName>().unwrap_err().to_string();
            assert!(sentence.contains("put the folder or a link"), "{sentence}");
        }
        let name = ModelName::from_operator("/models/own:onnx/model.onnx").unwrap();
        assert_eq!(name.path(), Some(Path::new("/models/own")));
        assert_eq!(name.file(), Some("onnx/model.onnx"));
        assert!(ModelName::from_operator("/models/own:../model.onnx").is_err());
        assert_eq!(ModelName::from_operator("a/b").unwrap().path(), None);
    }

    proptest::proptest! {
        #[test]
        fn a_name_that_parses_has_at_most_two_plain_components(name in "[a-zA-Z0-9./\\\\_@:-]{0,14}(\\.onnx)?") {
            if let Ok(name) = name.parse::<ModelName>() {
                let plain = |path: &str| {
                    let mut parts = Path::new(path).components();
                    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
                };
                assert!(plain(name.as_str()) && Path::new(name.repository()).components().count() <= 2);
                assert!(name.file().is_none_or(plain) && name.revision().is_none_or(plain));
            }
        }
    }
}
