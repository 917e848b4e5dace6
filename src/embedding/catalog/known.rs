//! Models known by name: what `show-models` lists before anything is downloaded, and the names that the older
//! trigger-based daemon used for them.
//!
//! What the table says is shown to people, and says where to download a model; a loaded model is described by its own
//! files. Where these do not say how to pool, [`recipe_of`] does.

mod entry;
mod table;

use crate::embedding::pooling::PoolingMode;

pub(crate) use entry::{KnownModel, RoleTasks};
pub(crate) use table::KNOWN;

/// How the models of a family make one vector of their token states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// How they pool.
    pub pooling: PoolingMode,
    /// Whether the vector is normalized.
    pub normalized: bool,
}

const fn recipe(pooling: PoolingMode, normalized: bool) -> Recipe {
    Recipe {
        pooling,
        normalized,
    }
}

/// Families of models whose folders are often copied without the files that state this, under the names of several
/// organizations. By the beginning of the last part of the name, in lower case; the first that fits counts.
const FAMILIES: &[(&str, Recipe)] = &[
    ("bge-en-icl", recipe(PoolingMode::LastToken, true)),
    (
        "bge-multilingual-gemma2",
        recipe(PoolingMode::LastToken, true),
    ),
    ("bge-", recipe(PoolingMode::Cls, true)),
    ("snowflake-arctic-embed", recipe(PoolingMode::Cls, true)),
    ("mxbai-embed-large", recipe(PoolingMode::Cls, false)),
    ("multi-qa-mpnet-base-dot", recipe(PoolingMode::Cls, false)),
    ("all-minilm-", recipe(PoolingMode::Mean, true)),
    ("all-mpnet-base-", recipe(PoolingMode::Mean, true)),
    ("e5-small", recipe(PoolingMode::Mean, true)),
    ("e5-base", recipe(PoolingMode::Mean, true)),
    ("e5-large", recipe(PoolingMode::Mean, true)),
    ("multilingual-e5-small", recipe(PoolingMode::Mean, true)),
    ("multilingual-e5-base", recipe(PoolingMode::Mean, true)),
    // With its "instruct" form.
    ("multilingual-e5-large", recipe(PoolingMode::Mean, true)),
];

/// A known model by its canonical name.
pub(crate) fn find(name: &str) -> Option<&'static KnownModel> {
    KNOWN.iter().find(|model| model.name == name)
}

/// Resolves an alias to the published name; returns any other name unchanged.
pub(crate) fn canonical(name: &str) -> &str {
    KNOWN
        .iter()
        .find(|model| model.aliases.contains(&name))
        .map_or(name, |model| model.name)
}

/// The model that is downloaded from this repository of another organization; any other name unchanged.
pub(crate) fn canonical_of_source(repository: &str) -> &str {
    let is_source = |model: &&KnownModel| {
        let source = model.source;
        source.is_some_and(|source| source.repository == repository)
    };
    let model = KNOWN.iter().find(is_source);
    model.map_or(repository, |model| model.name)
}

/// The repository of another organization that has the export of a model.
pub(crate) fn source_repository(name: &str) -> Option<&'static str> {
    find(name)?.source.map(|source| source.repository)
}

/// The graph of a model whose repository has it under a name of its own.
pub(crate) fn graph_file(name: &str) -> Option<&'static str> {
    find(name)?.source.map(|source| source.graph)
}

/// How a model of this name pools, as its publishers have published it; `None` if that is not known here.
pub(crate) fn recipe_of(name: &str) -> Option<Recipe> {
    let last = name.rsplit('/').next()?.to_ascii_lowercase();
    let family = FAMILIES.iter().find(|(family, _)| last.starts_with(family));
    family.map(|(_, recipe)| *recipe)
}

/// The tasks that the texts of each role have, of a model whose graph takes the number of one.
pub(crate) fn tasks_of(name: &str) -> Option<RoleTasks> {
    find(name)?.tasks
}

/// The aliases of a model, by its canonical name.
pub(crate) fn aliases(name: &str) -> &'static [&'static str] {
    find(name).map_or(&[], |model| model.aliases)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::embedding::catalog::model_catalog::ModelCatalog;
    use crate::embedding::files::model_files::ModelFiles;
    use crate::embedding::hub::HubSettings;
    use crate::embedding::name::ModelName;

    /// Models that this machine happens to have: those of `make setup`, and those in the cache of its user.
    #[test]
    fn the_table_agrees_with_the_files_of_the_models_that_are_here() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/models");
        let hub = HubSettings::from_environment();
        let catalog = ModelCatalog::new(models).with_cache(hub.cache());
        for model in KNOWN {
            let name: ModelName = model.name.parse().unwrap();
            let Ok(folder) = catalog.locate(&name) else {
                continue;
            };
            let Ok(files) = ModelFiles::read(&folder, &name) else {
                continue;
            };
            let dimensions = files.dimensions.unwrap_or(model.dimensions);
            assert_eq!(
                (dimensions, files.max_tokens),
                (model.dimensions, model.max_tokens),
                "{name}"
            );
            if let Some(pooling) = model.pooling {
                assert_eq!(files.pooling.modes(), [pooling], "{name}");
            }
        }
    }

    #[test]
    fn names_and_sources_are_names_of_models_and_stand_for_one_model_each() {
        let mut names = Vec::new();
        for model in KNOWN {
            let source = model.source.map(|source| source.repository);
            names.extend([model.name].into_iter().chain(source));
            names.extend(model.aliases);
            if let Some(source) = model.source {
                let name = format!("{}:{}", source.repository, source.graph);
                let name: ModelName = name.parse().unwrap();
                assert_eq!(canonical_of_source(name.repository()), model.name);
            }
        }
        for name in &names {
            assert!(name.parse::<ModelName>().is_ok(), "{name}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_document_has_the_table() {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md");
        let document = std::fs::read_to_string(document).unwrap();
        for model in KNOWN {
            let note = model.unsupported.map_or("", |_| " (not supported)");
            let beginning = format!(
                "| {}{note} | {} | {} |",
                model.name, model.dimensions, model.max_tokens
            );
            assert!(document.contains(&beginning), "{beginning}");
            if let Some(source) = model.source {
                let line = format!("| {} | {} |", model.name, source.repository);
                assert!(document.contains(&line), "{line}");
            }
        }
    }

    #[test]
    fn recipes_agree_with_what_is_shown_of_known_models() {
        for model in KNOWN {
            if let Some(recipe) = recipe_of(model.name) {
                assert_eq!(Some(recipe.pooling), model.pooling, "{}", model.name);
            }
        }
        let pooling = |name| recipe_of(name).map(|recipe| recipe.pooling);
        assert_eq!(pooling("Xenova/BGE-base-en-v1.5"), Some(PoolingMode::Cls));
        assert_eq!(pooling("BAAI/bge-en-icl"), Some(PoolingMode::LastToken));
        assert_eq!(pooling("acme/own"), None);
    }
}
