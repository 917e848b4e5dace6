//! Finds models on this machine and describes them without loading them.
//!
//! ```text
//!  models/
//!    acme/search/                                  a plain copy: `organization/name`
//!    models--acme--search/refs/main                the cache of Hugging Face's tools (`huggingface_hub`):
//!    models--acme--search/snapshots/<revision>/    the revision that refs/main names
//! ```

use std::path::{Path, PathBuf};

use super::error::EmbeddingError;
use super::files::ModelFiles;
use super::identity::graph_files;
use super::known::{self, KNOWN};
use super::modules::Step;
use super::name::ModelName;
use super::pooling::Pooling;

/// The models below one folder, in either of two layouts: `organization/name/` as a plain copy, or
/// `models--organization--name/snapshots/<revision>/` as Hugging Face's tools cache it.
#[derive(Debug, Clone)]
pub struct ModelCatalog {
    folder: PathBuf,
}

/// What is known about a model: a line of `show-models`.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// The canonical name.
    pub name: ModelName,
    /// Other names that jobs may use.
    pub aliases: Vec<String>,
    /// The length of its vectors; `None` if unknown.
    pub dimensions: Option<usize>,
    /// The longest input in tokens, special tokens included.
    pub max_tokens: Option<usize>,
    /// How token states become a vector.
    pub pooling: Option<Pooling>,
    /// Bytes on disk, of the files that are loaded.
    pub size: Option<u64>,
    /// Whether it is on this machine.
    pub location: Location,
    /// Why a local model cannot be loaded, as far as its small files tell.
    pub problem: Option<String>,
}

/// Whether a model is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In this folder.
    Local(PathBuf),
    /// Only its name is known.
    NotDownloaded,
}

impl ModelCatalog {
    /// A catalog of the models below `model_folder`; the folder need not exist.
    #[must_use]
    pub fn new(model_folder: PathBuf) -> Self {
        Self {
            folder: model_folder,
        }
    }

    /// The folder in which models are searched.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The known models and those found on disk, sorted by name. Reads the small files of the latter.
    #[must_use]
    pub fn entries(&self) -> Vec<ModelEntry> {
        let mut names: Vec<ModelName> = KNOWN
            .iter()
            .filter_map(|model| model.name.parse().ok())
            .collect();
        names.extend(self.names_on_disk());
        names.sort();
        names.dedup();
        names.into_iter().map(|name| self.entry(name)).collect()
    }

    /// The folder with the model's files.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::ModelNotFound`] lists every folder that was searched and says how to get the model.
    pub fn locate(&self, name: &ModelName) -> Result<PathBuf, EmbeddingError> {
        let looked_in = self.candidates(name);
        match looked_in.iter().find(|folder| is_model(folder)) {
            Some(folder) => Ok(folder.clone()),
            None => Err(EmbeddingError::ModelNotFound {
                name: name.clone(),
                remedy: self.remedy(name),
                looked_in,
            }),
        }
    }

    /// Folders that may hold the model: plain copies before caches, the canonical name before its aliases.
    fn candidates(&self, name: &ModelName) -> Vec<PathBuf> {
        let names: Vec<&str> = std::iter::once(name.as_str())
            .chain(known::aliases(name.as_str()).iter().copied())
            .collect();
        let plain = names.iter().map(|name| self.folder.join(name));
        let cached = names.iter().map(|name| {
            let cache = self
                .folder
                .join(format!("models--{}", name.replace('/', "--")));
            snapshot(&cache).unwrap_or_else(|| cache.join("snapshots"))
        });
        plain.chain(cached).collect()
    }

    /// How to get the model.
    fn remedy(&self, name: &ModelName) -> String {
        let target = self.folder.join(name.as_str());
        let fetch = format!(
            "put its sentence-transformers folder with an ONNX export (model.onnx, tokenizer.json, config.json, \
             modules.json, 1_Pooling/) there, for example with `hf download {name} --local-dir {}`",
            target.display()
        );
        if name.as_str() == ModelName::DEFAULT {
            format!("run `make setup`, or {fetch}")
        } else {
            format!(
                "{fetch}, or use {}, which `make setup` downloads",
                ModelName::DEFAULT
            )
        }
    }

    /// Describes a model: by its own files if it is on disk, else by what is known about its name.
    fn entry(&self, name: ModelName) -> ModelEntry {
        let known = KNOWN.iter().find(|model| model.name == name.as_str());
        let mut entry = ModelEntry {
            aliases: known::aliases(name.as_str())
                .iter()
                .map(ToString::to_string)
                .collect(),
            dimensions: known.map(|model| model.dimensions),
            max_tokens: known.map(|model| model.max_tokens),
            pooling: known
                .and_then(|model| model.pooling)
                .map(|mode| Pooling::new(vec![mode])),
            size: None,
            location: Location::NotDownloaded,
            problem: None,
            name,
        };
        let Ok(folder) = self.locate(&entry.name) else {
            return entry;
        };
        match ModelFiles::read(&folder) {
            Ok(files) => {
                entry.dimensions = files.dimensions.or(entry.dimensions);
                entry.max_tokens = Some(files.max_tokens);
                entry.pooling = Some(files.pooling.clone());
                entry.size = Some(size(&files));
            }
            Err(error) => entry.problem = Some(error.to_string()),
        }
        entry.location = Location::Local(folder);
        entry
    }

    /// The names of the models in both layouts. Names that are not valid model names are skipped.
    fn names_on_disk(&self) -> Vec<ModelName> {
        let mut names = Vec::new();
        for outer in folders(&self.folder) {
            let Some(name) = outer.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if let Some(cached) = name.strip_prefix("models--") {
                names.push(cached.replacen("--", "/", 1));
            } else if is_model(&outer) {
                names.push(name.to_owned());
            } else {
                let models = folders(&outer).into_iter().filter(|inner| is_model(inner));
                let inner =
                    models.filter_map(|inner| Some(inner.file_name()?.to_str()?.to_owned()));
                names.extend(inner.map(|inner| format!("{name}/{inner}")));
            }
        }
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// Whether a folder describes a model. The graph may be missing: then the model is listed with the reason why it is
/// unusable.
fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file() || folder.join("modules.json").is_file()
}

/// The cached revision that `refs/main` names, else the most recent one.
fn snapshot(cache: &Path) -> Option<PathBuf> {
    let snapshots = cache.join("snapshots");
    if let Ok(revision) = std::fs::read_to_string(cache.join("refs/main")) {
        let revision = revision.trim();
        // A commit hash. Anything else could lead out of the cache.
        let plain =
            !revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let folder = snapshots.join(revision);
        if plain && folder.is_dir() {
            return Some(folder);
        }
    }
    let written = |folder: &PathBuf| {
        folder
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    folders(&snapshots).into_iter().max_by_key(written)
}

/// The folders in a folder; none if it cannot be read.
fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

/// Bytes of the files that are loaded: the graph, its external data, the tokenizer and dense layers.
fn size(files: &ModelFiles) -> u64 {
    let layers = files.steps.iter().filter_map(|step| match step {
        Step::Dense(folder) => Some(folder.join("model.safetensors")),
        Step::Normalize => None,
    });
    let graph = graph_files(&files.onnx).unwrap_or_default();
    let all = graph
        .into_iter()
        .chain(layers)
        .chain([files.tokenizer.clone()]);
    all.filter_map(|path| path.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, path: &str, content: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn name(name: &str) -> ModelName {
        name.parse().unwrap()
    }

    #[test]
    fn the_error_for_a_missing_model_lists_the_folders_and_the_remedy() {
        let catalog = ModelCatalog::new("/nowhere/models".into());
        let sentence = catalog
            .locate(&name("microsoft/all-MiniLM-L12-v2"))
            .unwrap_err()
            .to_string();
        assert!(
            sentence.contains("/nowhere/models/sentence-transformers/all-MiniLM-L12-v2"),
            "{sentence}"
        );
        assert!(
            sentence.contains("/nowhere/models/microsoft/all-MiniLM-L12-v2"),
            "{sentence}"
        );
        assert!(
            sentence.contains("hf download sentence-transformers/all-MiniLM-L12-v2"),
            "{sentence}"
        );
    }

    #[test]
    fn models_are_found_as_copies_in_caches_and_under_aliases() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = ModelCatalog::new(folder.path().into());
        write(folder.path(), "acme/plain/config.json", "{}");
        write(
            folder.path(),
            "models--acme--cached/snapshots/old/config.json",
            "{}",
        );
        write(
            folder.path(),
            "models--acme--cached/snapshots/new/config.json",
            "{}",
        );
        write(folder.path(), "models--acme--cached/refs/main", "old\n");
        write(
            folder.path(),
            "microsoft/all-mpnet-base-v2/config.json",
            "{}",
        );

        assert_eq!(
            catalog.locate(&name("acme/plain")).unwrap(),
            folder.path().join("acme/plain")
        );
        let cached = catalog.locate(&name("acme/cached")).unwrap();
        assert!(cached.ends_with("models--acme--cached/snapshots/old"));
        let alias = catalog
            .locate(&name("sentence-transformers/all-mpnet-base-v2"))
            .unwrap();
        assert!(alias.ends_with("microsoft/all-mpnet-base-v2"));

        let entries = catalog.entries();
        let entry = |wanted: &str| {
            entries
                .iter()
                .find(|entry| entry.name.as_str() == wanted)
                .unwrap()
        };
        assert!(matches!(entry("acme/plain").location, Location::Local(_)));
        assert!(
            entry("acme/plain")
                .problem
                .as_ref()
                .unwrap()
                .contains("tokenizer.json")
        );
        assert!(matches!(entry("acme/cached").location, Location::Local(_)));
        let known = entry(ModelName::DEFAULT);
        assert_eq!(
            (known.dimensions, known.location.clone()),
            (Some(384), Location::NotDownloaded)
        );
    }
}
