//! Which files of a repository a model needs: what the loader reads (`files.rs`, `modules.rs`), and no more.

use serde::Deserialize;

use super::error::DownloadFailure;
use super::repository::Repository;
use crate::embedding::catalog::known;
use crate::embedding::files::model_files::TRANSFORMER_CONFIGS;
use crate::embedding::name::ModelName;

/// Says which other folders matter, so it is fetched first.
pub(super) const MODULES: &str = "modules.json";

/// The files of the transformer module.
const OF_TRANSFORMER: &[&str] = &["config.json", "tokenizer.json", "tokenizer_config.json"];
/// The files of the other modules.
const OF_MODULE: &[&str] = &["config.json", "model.safetensors"];

/// The folders of modules.
pub(super) struct Folders {
    transformer: String,
    others: Vec<String>,
}

impl Folders {
    /// Reads `modules.json`. What is malformed in it is for the loader to say.
    pub(super) fn parse(modules: Option<&[u8]>) -> Self {
        #[derive(Deserialize)]
        struct Module {
            #[serde(default)]
            path: String,
        }
        let bare = || {
            vec![
                Module {
                    path: String::new(),
                },
                Module {
                    path: "1_Pooling".into(),
                },
            ]
        };
        let modules: Option<Vec<Module>> =
            modules.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let mut paths = modules.unwrap_or_else(bare).into_iter().map(|module| {
            let path = module.path.trim_matches('/').to_owned();
            path.strip_prefix("./").unwrap_or(&path).to_owned()
        });
        Self {
            transformer: paths.next().unwrap_or_default(),
            others: paths.collect(),
        }
    }

    /// The configuration of the transformer, which may name the graph, if the repository has one.
    pub(super) fn transformer_config(&self, repository: &Repository) -> Option<String> {
        let candidates = TRANSFORMER_CONFIGS
            .iter()
            .map(|name| within(&self.transformer, name));
        candidates.into_iter().find(|path| repository.has(path))
    }

    /// All files but the graph and its weights.
    pub(super) fn small_files(&self, repository: &Repository) -> Vec<String> {
        let at_root = [MODULES, "config.json", "config_sentence_transformers.json"];
        let at_root = at_root.map(str::to_owned).into_iter();
        let of_transformer = OF_TRANSFORMER
            .iter()
            .map(|name| within(&self.transformer, name))
            .chain(self.transformer_config(repository));
        let others = self.others.iter().filter(|folder| !folder.is_empty());
        let of_others =
            others.flat_map(|folder| OF_MODULE.iter().map(move |name| within(folder, name)));
        let mut files: Vec<String> = at_root
            .chain(of_transformer)
            .chain(of_others)
            .filter(|path| repository.has(path))
            .collect();
        files.sort();
        files.dedup();
        files
    }

    /// The graph: the one that the name chooses, else the one that the configuration names, else the plain export, else
    /// the one that is known of this model. The order is that of the loader.
    pub(super) fn graph(
        &self,
        repository: &Repository,
        name: &ModelName,
        named: Option<&str>,
    ) -> Result<String, DownloadFailure> {
        let base = &self.transformer;
        let candidates: Vec<String> = match (name.file(), named) {
            (Some(file), _) => {
                let found = repository.has(file).then(|| file.to_owned());
                return found.ok_or_else(|| DownloadFailure::NoFile {
                    file: file.to_owned(),
                    graphs: repository.graphs(),
                });
            }
            (None, Some(named)) => {
                vec![named.to_owned(), within(base, named), within("onnx", named)]
            }
            (None, None) => [
                Some(""),
                Some(base.as_str()).filter(|base| !base.is_empty()),
            ]
            .iter()
            .flatten()
            .flat_map(|place| ["model.onnx", "onnx/model.onnx"].map(|file| within(place, file)))
            .chain(known::graph_file(name.repository()).map(str::to_owned))
            .collect(),
        };
        let found = candidates.iter().find(|path| repository.has(path));
        found.cloned().ok_or_else(|| DownloadFailure::NoGraph {
            repository: repository.id.clone(),
            looked_for: candidates.clone(),
            graphs: repository.graphs(),
        })
    }
}

/// The graph that the configuration of the transformer names.
pub(super) fn graph_named_by(config: &[u8]) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let file = config.get("model_args")?.get("file_name")?;
    file.as_str().map(str::to_owned)
}

/// The files that exporters put beside a graph, named after it.
pub(super) fn files_beside(repository: &Repository, graph: &str) -> Vec<String> {
    let beside = |path: &&str| {
        path.strip_prefix(graph)
            .is_some_and(|rest| rest.starts_with(['_', '.']) && !rest.contains('/'))
    };
    repository
        .paths()
        .filter(beside)
        .map(str::to_owned)
        .collect()
}

/// A file by its name in a folder of the repository.
pub(super) fn within(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}
