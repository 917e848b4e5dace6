//! Finds models on this machine and describes them without loading them.
//!
//! ```text
//!  models/
//!    acme/search/                                  a plain copy: `organization/name`
//!    acme/search@v2/                               one of another revision
//!    models--acme--search/refs/main                the cache of Hugging Face's tools (`huggingface_hub`):
//!    models--acme--search/snapshots/<commit>/      the commit that refs/main names
//!
//!  ~/.cache/huggingface/hub/models--acme--search/   the same, where those tools keep it
//! ```

use std::path::{Path, PathBuf};

use super::known::{self, KNOWN};
use super::similar::most_similar;
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::identity::graph_files;
use crate::embedding::files::model_files::ModelFiles;
use crate::embedding::files::modules::Step;
use crate::embedding::hub::is_commit;
use crate::embedding::name::ModelName;
use crate::embedding::pooling::Pooling;
use crate::embedding::role::TextRole;

/// The models below one folder, in either of two layouts: `organization/name/` as a plain copy, or
/// `models--organization--name/snapshots/<commit>/` as Hugging Face's tools cache it; and those of other such caches.
#[derive(Debug, Clone)]
pub struct ModelCatalog {
    folder: PathBuf,
    /// Further caches, which are searched after the folder.
    caches: Vec<PathBuf>,
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
    /// What stands before a query; `None` if unknown. That of a local model is read from its files, and used.
    pub query_prompt: Option<String>,
    /// What stands before a document, likewise.
    pub document_prompt: Option<String>,
    /// The license of its publishers, by its SPDX identifier or their own name for it; `None` if unknown.
    pub license: Option<&'static str>,
    /// The repository that it is downloaded from, if that is another than its name.
    pub source: Option<&'static str>,
    /// Bytes on disk, of the files that are loaded.
    pub size: Option<u64>,
    /// Whether it is on this machine.
    pub location: Location,
    /// The commit that it is pinned to, if it is from a hub.
    pub commit: Option<String>,
    /// Why a local model cannot be loaded, as far as its small files tell.
    pub problem: Option<String>,
    /// What is assumed of a local model, because its files do not say it.
    pub assumption: Option<String>,
}

/// Whether a model is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In this folder.
    Local(PathBuf),
    /// Only its name is known.
    NotDownloaded,
}

impl ModelEntry {
    /// What is known about a model that is not here.
    fn known(name: ModelName) -> Self {
        let known = known::find(name.repository());
        let prompt = |prompt: Option<&str>| prompt.map(str::to_owned);
        Self {
            aliases: known::aliases(name.repository())
                .iter()
                .map(ToString::to_string)
                .collect(),
            dimensions: known.map(|model| model.dimensions),
            max_tokens: known.map(|model| model.max_tokens),
            pooling: known
                .and_then(|model| model.pooling)
                .map(|mode| Pooling::new(vec![mode])),
            query_prompt: known.and_then(|model| prompt(model.query_prompt)),
            document_prompt: known.and_then(|model| prompt(model.document_prompt)),
            license: known.and_then(|model| model.license),
            source: known
                .and_then(|model| model.source)
                .map(|source| source.repository),
            size: None,
            location: Location::NotDownloaded,
            commit: None,
            problem: known.and_then(|model| prompt(model.unsupported)),
            assumption: None,
            name,
        }
    }
}

impl ModelCatalog {
    /// A catalog of the models below `model_folder`; the folder need not exist.
    #[must_use]
    pub fn new(model_folder: PathBuf) -> Self {
        Self {
            folder: model_folder,
            caches: Vec::new(),
        }
    }

    /// The same, with a cache of Hugging Face's tools, which is searched where the model folder has nothing.
    #[must_use]
    pub fn with_cache(mut self, cache: Option<&Path>) -> Self {
        self.caches.extend(cache.map(Path::to_owned));
        self
    }

    /// The folders in which models are searched, in this order.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        let caches = self.caches.iter().map(PathBuf::as_path);
        std::iter::once(self.folder()).chain(caches).collect()
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
        names.extend(self.usable_in_caches());
        names.sort();
        names.dedup();
        names.into_iter().map(|name| self.entry(name)).collect()
    }

    /// The folder with the model's files.
    ///
    /// # Errors
    ///
    /// [`EmbeddingError::ModelNotFound`] lists every folder that was searched and says how to get the model, or which
    /// name may have been meant. A folder that is there without the model's files is named with what it lacks.
    pub fn locate(&self, name: &ModelName) -> Result<PathBuf, EmbeddingError> {
        let looked_in = self.candidates(name);
        if let Some(folder) = self.choose(name, &looked_in) {
            return Ok(folder.clone());
        }
        if let Some(folder) = looked_in.iter().find(|folder| is_incomplete(folder)) {
            return Err(EmbeddingError::unusable(folder, lacking(folder)));
        }
        Err(EmbeddingError::ModelNotFound {
            name: name.clone(),
            remedy: self.remedy(name),
            looked_in,
        })
    }

    /// The first of these folders that has the model. A cache may have files of it for another purpose; then another
    /// place may have it whole.
    fn choose<'a>(&self, name: &ModelName, candidates: &'a [PathBuf]) -> Option<&'a PathBuf> {
        let models = || candidates.iter().filter(|folder| is_model(folder));
        let is_whole = |folder: &&PathBuf| {
            self.cached_commit(folder).is_none() || ModelFiles::read(folder, name).is_ok()
        };
        models().find(is_whole).or_else(|| models().next())
    }

    /// Whether a folder is one of a cache, which may lack files of the model: other tools download the files that they
    /// need. Returns the commit.
    pub(crate) fn cached_commit<'a>(&self, folder: &'a Path) -> Option<&'a str> {
        let commit = folder
            .file_name()?
            .to_str()
            .filter(|name| is_commit(name))?;
        let is_snapshot = folder.parent()?.file_name()? == "snapshots";
        is_snapshot.then_some(commit)
    }

    /// Folders that may hold the model: plain copies before caches, the canonical name before its aliases, and both before
    /// the repository of another organization that has an export of it.
    fn candidates(&self, name: &ModelName) -> Vec<PathBuf> {
        if let Some(path) = name.path() {
            return vec![path.to_owned()];
        }
        let names: Vec<&str> = std::iter::once(name.repository())
            .chain(known::aliases(name.repository()).iter().copied())
            .collect();
        let plain = names.iter().map(|repository| {
            let revision = name.revision().map(|revision| format!("@{revision}"));
            let revision = revision.unwrap_or_default();
            self.folder.join(format!("{repository}{revision}"))
        });
        let download = name.download_repository();
        let repositories = names
            .iter()
            .copied()
            .chain((download != name.repository()).then_some(download));
        let cached = repositories.flat_map(|repository| {
            let cache = format!("models--{}", repository.replace('/', "--"));
            let caches = self.folders().into_iter();
            caches.map(move |folder| cached_folder(&folder.join(&cache), name.revision()))
        });
        plain.chain(cached).collect()
    }

    /// How to get the model, or what it may be called.
    fn remedy(&self, name: &ModelName) -> String {
        if name.path().is_some() {
            return "check the path".into();
        }
        let put = format!(
            "put its sentence-transformers folder with an ONNX export ({}) there",
            FILES.join(", ")
        );
        if let Some(meant) = self.meant_by(name) {
            return format!("did you mean {meant}? If the name is right, {put}");
        }
        let fetch = format!("download it with `lantern-cli pull {name}`, or {put}");
        if name.as_str() == ModelName::DEFAULT {
            format!("run `make setup`, or {fetch}")
        } else {
            fetch
        }
    }

    /// The name that a misspelt one was most likely meant to be, with where that model is.
    #[must_use]
    pub fn meant_by(&self, name: &ModelName) -> Option<String> {
        if known::find(name.repository()).is_some() {
            return None;
        }
        let on_disk = self.names_on_disk();
        let known = KNOWN
            .iter()
            .flat_map(|model| [&[model.name][..], model.aliases].concat());
        let candidates = on_disk.iter().map(ModelName::as_str).chain(known);
        let candidates = candidates.filter(|candidate| *candidate != name.repository());
        let meant: ModelName = most_similar(name.repository(), candidates)?.parse().ok()?;
        let here = match self.choose(&meant, &self.candidates(&meant)) {
            Some(_) => "which is on this machine",
            None => "which is not on this machine either",
        };
        Some(format!("{meant}, {here}"))
    }

    /// Describes a model: by its own files if it is on disk, else by what is known about its name.
    #[must_use]
    pub fn entry(&self, name: ModelName) -> ModelEntry {
        let mut entry = ModelEntry::known(name);
        let Ok(folder) = self.locate(&entry.name) else {
            return entry;
        };
        entry.problem = None;
        let files = ModelFiles::read(&folder, &entry.name);
        match files.and_then(|files| Ok((size(&files)?, files))) {
            Ok((size, files)) => {
                entry.dimensions = files.dimensions.or(entry.dimensions);
                entry.max_tokens = Some(files.max_tokens);
                entry.pooling = Some(files.pooling.clone());
                let prompt = |role| Some(files.prompt(role, files.tasks.of(role)).to_owned());
                entry.query_prompt = prompt(TextRole::Query);
                entry.document_prompt = prompt(TextRole::Document);
                entry.size = Some(size);
                entry.assumption = files.assumption;
            }
            Err(error) => entry.problem = Some(error.to_string()),
        }
        entry.commit = self.cached_commit(&folder).map(str::to_owned);
        entry.location = Location::Local(folder);
        entry
    }

    /// The models in the further caches that can be used as they are. Those caches have models of every kind.
    fn usable_in_caches(&self) -> Vec<ModelName> {
        let cached = self.caches.iter().flat_map(|cache| folders(cache));
        let names = cached.filter_map(|folder| cached_name(&folder)?.parse().ok());
        let is_usable = |name: &ModelName| {
            let folder = self.locate(name);
            folder.is_ok_and(|folder| ModelFiles::read(&folder, name).is_ok())
        };
        names.filter(is_usable).collect()
    }

    /// The names of the models in both layouts. Names that are not valid model names are skipped.
    fn names_on_disk(&self) -> Vec<ModelName> {
        let mut names = Vec::new();
        for outer in folders(&self.folder) {
            let Some(name) = outer.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if let Some(cached) = cached_name(&outer) {
                if folders(&outer.join("snapshots")).is_empty() {
                    continue;
                }
                names.push(known::canonical_of_source(&cached).to_owned());
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

/// The name of the repository that a folder of a cache is for.
pub(crate) fn cached_name(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(name.replacen("--", "/", 1))
}

/// Whether a folder describes a model. The graph may be missing: then the model is listed with the reason why it is
/// unusable.
fn is_model(folder: &Path) -> bool {
    folder.join("config.json").is_file() || folder.join("modules.json").is_file()
}

/// The files of a model.
const FILES: [&str; 5] = [
    "model.onnx",
    "tokenizer.json",
    "config.json",
    "modules.json",
    "1_Pooling/",
];

/// Whether a folder was meant to be a model's, and lacks the files that describe it: it has another of them, or nothing
/// at all. A folder of folders is an organization's.
fn is_incomplete(folder: &Path) -> bool {
    let has_file = FILES.iter().any(|file| folder.join(file).exists());
    let is_empty = || std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    folder.is_dir() && (has_file || folder.join("onnx").is_dir() || is_empty())
}

/// What an incomplete folder lacks.
fn lacking(folder: &Path) -> String {
    let has_graph = folder.join("onnx/model.onnx").exists();
    let missing: Vec<&str> = FILES
        .into_iter()
        .filter(|file| !(folder.join(file).exists() || has_graph && *file == "model.onnx"))
        .collect();
    format!(
        "the folder is there, but lacks config.json; of a model's files it has not: {}",
        missing.join(", ")
    )
}

/// The folder of a cached revision, or where that would be.
fn cached_folder(cache: &Path, revision: Option<&str>) -> PathBuf {
    let snapshots = cache.join("snapshots");
    let found = match revision {
        Some(commit) if is_commit(commit) => Some(snapshots.join(commit)),
        Some(revision) => pinned(cache, revision),
        // Other tools write no note for a commit that they were asked for by its hash.
        None if has_notes(cache) => pinned(cache, "main"),
        None => newest(&snapshots),
    };
    found.unwrap_or(snapshots)
}

/// Whether a cache notes the commit of any revision.
fn has_notes(cache: &Path) -> bool {
    std::fs::read_dir(cache.join("refs")).is_ok_and(|mut notes| notes.next().is_some())
}

/// The folder of the commit that a revision is pinned to.
fn pinned(cache: &Path, revision: &str) -> Option<PathBuf> {
    let commit = std::fs::read_to_string(cache.join("refs").join(revision)).ok()?;
    let commit = commit.trim();
    // A commit hash. Anything else could lead out of the cache.
    let plain = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let folder = cache.join("snapshots").join(commit);
    (plain && folder.is_dir()).then_some(folder)
}

fn newest(snapshots: &Path) -> Option<PathBuf> {
    let written = |folder: &PathBuf| {
        folder
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    folders(snapshots).into_iter().max_by_key(written)
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
fn size(files: &ModelFiles) -> Result<u64, EmbeddingError> {
    let layers = files.steps.iter().filter_map(|step| match step {
        Step::Dense(folder) => Some(folder.join("model.safetensors")),
        Step::Normalize => None,
    });
    let graph = graph_files(&files.onnx)?;
    let all = graph
        .into_iter()
        .chain(layers)
        .chain([files.tokenizer.clone()]);
    let sizes = all.filter_map(|path| path.metadata().ok());
    Ok(sizes.map(|metadata| metadata.len()).sum())
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
            sentence.contains("lantern-cli pull sentence-transformers/all-MiniLM-L12-v2"),
            "{sentence}"
        );
    }

    #[test]
    fn a_misspelt_name_is_not_recommended_for_download() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "acme/searching/config.json", "{}");
        let catalog = ModelCatalog::new(folder.path().into());
        let said = |wanted: &str| catalog.locate(&name(wanted)).unwrap_err().to_string();
        let sentence = said("acme/serching");
        assert!(
            sentence.contains("did you mean acme/searching, which is on this machine?"),
            "{sentence}"
        );
        assert!(!sentence.contains("lantern-cli pull"), "{sentence}");
        let sentence = said("sentence-transformers/all-MiniLM-L6");
        assert!(
            sentence.contains("did you mean sentence-transformers/all-MiniLM-L6-v2, which is not"),
            "{sentence}"
        );
        let sentence = said("acme/other");
        assert!(
            sentence.contains("`lantern-cli pull acme/other`"),
            "{sentence}"
        );
        let sentence = said("microsoft/all-MiniLM-L12-v2");
        assert!(
            sentence.starts_with("model microsoft/all-MiniLM-L12-v2 (sentence-transformers/"),
            "{sentence}"
        );
    }

    #[test]
    fn a_folder_without_its_description_is_not_called_missing() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = ModelCatalog::new(folder.path().into());
        write(folder.path(), "acme/search/tokenizer.json", "{}");
        write(folder.path(), "acme/search/onnx/model.onnx", "");
        let sentence = catalog
            .locate(&name("acme/search"))
            .unwrap_err()
            .to_string();
        assert!(
            sentence
                .contains("acme/search cannot be used: the folder is there, but lacks config.json"),
            "{sentence}"
        );
        assert!(
            sentence.ends_with("has not: config.json, modules.json, 1_Pooling/"),
            "{sentence}"
        );
        // The folder of an organization is no model.
        let error = catalog.locate(&name("acme")).unwrap_err();
        assert!(matches!(error, EmbeddingError::ModelNotFound { .. }));
    }

    #[test]
    fn a_download_that_has_only_begun_is_neither_listed_nor_meant() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = ModelCatalog::new(folder.path().into());
        for (id, file) in [
            ("own", "blobs/aa.incomplete"),
            ("owm", "snapshots/x/README.md"),
        ] {
            write(folder.path(), &format!("models--acme--{id}/{file}"), "{}");
        }
        for wanted in ["acme/own", "acme/owm"] {
            let error = catalog.locate(&name(wanted)).unwrap_err();
            assert!(matches!(error, EmbeddingError::ModelNotFound { .. }));
        }
        let listed = catalog.entries();
        assert!(listed.iter().all(|entry| entry.name.as_str() != "acme/own"));
    }

    #[test]
    fn a_revision_is_found_where_it_is_pinned_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let users = tempfile::tempdir().unwrap();
        let catalog = ModelCatalog::new(folder.path().into()).with_cache(Some(users.path()));
        let commit = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";
        let snapshot = format!("models--acme--own/snapshots/{commit}");
        write(users.path(), &format!("{snapshot}/config.json"), "{}");
        write(users.path(), "models--acme--own/refs/v1", commit);
        write(users.path(), "models--acme--own/refs/main", commit);
        write(folder.path(), "acme/own@v2/config.json", "{}");
        let found = |wanted: &str| catalog.locate(&name(wanted));
        let snapshot = users.path().join(snapshot);
        for wanted in ["acme/own", "acme/own@v1", &format!("acme/own@{commit}")] {
            assert_eq!(found(wanted).unwrap(), snapshot, "{wanted}");
        }
        assert_eq!(catalog.cached_commit(&snapshot), Some(commit));
        let copy = folder.path().join("acme/own@v2");
        assert_eq!(found("acme/own@v2").unwrap(), copy);
        assert_eq!(catalog.cached_commit(&copy), None);
        assert!(found("acme/own@v3").is_err());
        assert!(found(&format!("acme/own@{}", commit.replace('c', "d"))).is_err());
        // A note that leads elsewhere.
        write(users.path(), "models--acme--own/refs/v4", "../../../etc");
        assert!(found("acme/own@v4").is_err());
        // A revision that was asked for by its name is not the model's main one.
        std::fs::remove_file(users.path().join("models--acme--own/refs/main")).unwrap();
        assert!(found("acme/own").is_err());
        std::fs::remove_dir_all(users.path().join("models--acme--own/refs")).unwrap();
        assert_eq!(found("acme/own").unwrap(), snapshot);
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
