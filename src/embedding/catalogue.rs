//! Where models live on this machine, and what is known about them.

use std::path::{Path, PathBuf};

use super::error::EmbeddingError;
use super::files::ModelFiles;
use super::known::{self, KNOWN};
use super::modules::Step;
use super::name::ModelName;
use super::pooling::Pooling;

/// The models below one folder, in either of two layouts: `organisation/name/` as a plain copy, or
/// `models--organisation--name/snapshots/<revision>/` as the hub's tools cache it.
#[derive(Debug, Clone)]
pub struct Catalogue {
    folder: PathBuf,
}

/// A line of `show-models`.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// The canonical name.
    pub name: ModelName,
    /// Other names that jobs may use.
    pub aliases: Vec<String>,
    /// The length of its vectors.
    pub dimensions: Option<usize>,
    /// The longest input in tokens.
    pub max_tokens: Option<usize>,
    /// How token states become a vector.
    pub pooling: Option<Pooling>,
    /// Bytes on disk.
    pub size: Option<u64>,
    /// Whether it is here.
    pub location: Location,
    /// Why a model that is here cannot be loaded, as far as its small files tell.
    pub problem: Option<String>,
}

/// Whether a model is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In this folder.
    Local(PathBuf),
    /// Known by name only.
    NotDownloaded,
}

impl Catalogue {
    /// A catalogue of the models below `model_folder`; the folder need not exist.
    #[must_use]
    pub fn new(model_folder: PathBuf) -> Self {
        Self {
            folder: model_folder,
        }
    }

    /// The folder that models are looked for in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The known models and those found on disk, by name. Reads the small files of the latter.
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
    /// [`EmbeddingError::ModelNotFound`] lists every folder looked in and says how to get the model.
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

    /// Folders that may hold the model, the canonical name before its aliases, plain copies before caches.
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

    fn remedy(&self, name: &ModelName) -> String {
        let target = self.folder.join(name.as_str());
        let fetch = format!(
            "put its sentence-transformers folder with an ONNX export (model.onnx, tokenizer.json, config.json, \
             modules.json, 1_Pooling/) there, for instance with `hf download {name} --local-dir {}`",
            target.display()
        );
        if name.as_str() == ModelName::DEFAULT {
            format!("run `make setup`, or {fetch}")
        } else {
            format!(
                "{fetch}, or use {}, which `make setup` brings along",
                ModelName::DEFAULT
            )
        }
    }

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

/// A folder counts as a model by its own description, so that one without a graph is found and the reason told.
fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file() || folder.join("modules.json").is_file()
}

/// The cached revision that `refs/main` names, else the one written last.
fn snapshot(cache: &Path) -> Option<PathBuf> {
    let snapshots = cache.join("snapshots");
    if let Ok(revision) = std::fs::read_to_string(cache.join("refs/main")) {
        let revision = revision.trim();
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

/// Bytes of what is loaded: the graph, the data beside it, the tokenizer, dense layers.
fn size(files: &ModelFiles) -> u64 {
    let layers = files.steps.iter().filter_map(|step| match step {
        Step::Dense(folder) => Some(folder.join("model.safetensors")),
        Step::Normalize => None,
    });
    let graph = super::identity::graph_files(&files.onnx).unwrap_or_default();
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
    fn a_missing_model_is_explained() {
        let catalogue = Catalogue::new("/nowhere/models".into());
        let sentence = catalogue
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
    fn models_are_found_as_copies_as_caches_and_under_old_names() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::new(folder.path().into());
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
            catalogue.locate(&name("acme/plain")).unwrap(),
            folder.path().join("acme/plain")
        );
        let cached = catalogue.locate(&name("acme/cached")).unwrap();
        assert!(cached.ends_with("models--acme--cached/snapshots/old"));
        let alias = catalogue
            .locate(&name("sentence-transformers/all-mpnet-base-v2"))
            .unwrap();
        assert!(alias.ends_with("microsoft/all-mpnet-base-v2"));

        let entries = catalogue.entries();
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
