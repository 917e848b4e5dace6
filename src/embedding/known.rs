//! Models known by name: what `show-models` lists before anything is downloaded, and the names that the older
//! trigger-based daemon used for them.
//!
//! The numbers here are only shown to people; a loaded model is described by its own files. Where these do not say how
//! to pool, [`recipe_of`] does.

use super::pooling::PoolingMode;

const MEAN: Option<PoolingMode> = Some(PoolingMode::Mean);
const CLS: Option<PoolingMode> = Some(PoolingMode::Cls);

/// A published model, as its publishers describe it.
pub(crate) struct KnownModel {
    /// The canonical name.
    pub name: &'static str,
    /// Other names that jobs may use.
    pub aliases: &'static [&'static str],
    /// The length of its vectors.
    pub dimensions: usize,
    /// The longest input in tokens, special tokens included.
    pub max_tokens: usize,
    /// `None` if its publishers do not say.
    pub pooling: Option<PoolingMode>,
}

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

const fn model(
    name: &'static str,
    aliases: &'static [&'static str],
    dimensions: usize,
    max_tokens: usize,
    pooling: Option<PoolingMode>,
) -> KnownModel {
    KnownModel {
        name,
        aliases,
        dimensions,
        max_tokens,
        pooling,
    }
}

/// All known models.
pub(crate) static KNOWN: &[KnownModel] = &[
    model(
        "sentence-transformers/all-MiniLM-L6-v2",
        &["all-MiniLM-L6-v2"],
        384,
        256,
        MEAN,
    ),
    model(
        "sentence-transformers/all-MiniLM-L12-v2",
        &["microsoft/all-MiniLM-L12-v2", "all-MiniLM-L12-v2"],
        384,
        128,
        MEAN,
    ),
    model(
        "sentence-transformers/all-mpnet-base-v2",
        &["microsoft/all-mpnet-base-v2", "all-mpnet-base-v2"],
        768,
        384,
        MEAN,
    ),
    model(
        "sentence-transformers/multi-qa-mpnet-base-dot-v1",
        &[
            "transformers/multi-qa-mpnet-base-dot-v1",
            "multi-qa-mpnet-base-dot-v1",
        ],
        768,
        512,
        CLS,
    ),
    model("BAAI/bge-small-en", &[], 384, 512, CLS),
    model("BAAI/bge-base-en", &[], 768, 512, CLS),
    model("BAAI/bge-large-en", &[], 1024, 512, CLS),
    model("thenlper/gte-base", &[], 768, 512, MEAN),
    model("thenlper/gte-large", &[], 1024, 512, MEAN),
    model("llmware/industry-bert-insurance-v0.1", &[], 768, 512, None),
    model("intfloat/e5-base-v2", &[], 768, 512, MEAN),
    model("intfloat/e5-large-v2", &[], 1024, 512, MEAN),
    model("jinaai/jina-embeddings-v2-small-en", &[], 512, 8192, MEAN),
    model("jinaai/jina-embeddings-v2-base-en", &[], 768, 8192, MEAN),
];

/// Resolves an alias to the published name; returns any other name unchanged.
pub(crate) fn canonical(name: &str) -> &str {
    KNOWN
        .iter()
        .find(|model| model.aliases.contains(&name))
        .map_or(name, |model| model.name)
}

/// How a model of this name pools, as its publishers have published it; `None` if that is not known here.
pub(crate) fn recipe_of(name: &str) -> Option<Recipe> {
    let last = name.rsplit('/').next()?.to_ascii_lowercase();
    let family = FAMILIES.iter().find(|(family, _)| last.starts_with(family));
    family.map(|(_, recipe)| *recipe)
}

/// The aliases of a model, by its canonical name.
pub(crate) fn aliases(name: &str) -> &'static [&'static str] {
    KNOWN
        .iter()
        .find(|model| model.name == name)
        .map_or(&[], |model| model.aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

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
