//! Models whose vectors may be cut: they were trained so that the first dimensions alone are a vector of the text, too
//! (Kusupati et al., "Matryoshka Representation Learning", 2022). Of any other model, cut vectors are much worse.

/// Families of such models, by the beginning of the last part of the name, in lower case. What their files or their
/// publishers state.
const FAMILIES: &[&str] = &[
    "embeddinggemma",
    "jina-embeddings-v3",
    "jina-embeddings-v4",
    "jina-embeddings-v5",
    "modernbert-embed",
    "mxbai-embed-large-v1",
    "mxbai-embed-2d-large",
    "nomic-embed-text-v1.5",
    "nomic-embed-text-v2",
    "qwen3-embedding",
    "snowflake-arctic-embed-l-v2",
    "snowflake-arctic-embed-m-v1.5",
    "snowflake-arctic-embed-m-v2",
    "static-retrieval-mrl",
    "static-similarity-mrl",
];

/// # Errors
///
/// If a model of this name is not known to be made for it.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let last = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let known =
        FAMILIES.iter().any(|family| last.starts_with(family)) || last.contains("matryoshka");
    if known {
        return Ok(());
    }
    Err(
        "it is not known to be trained for shorter vectors (Matryoshka), so cut ones may be much worse; remove \
         dimensions, or add \"force\": true if it is"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_known_under_any_organization() {
        for name in [
            "nomic-ai/nomic-embed-text-v1.5",
            "Qwen/Qwen3-Embedding-0.6B",
            "onnx-community/Qwen3-Embedding-0.6B-ONNX",
            "tomaarsen/mpnet-base-nli-matryoshka",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["nomic-ai/nomic-embed-text-v1", "BAAI/bge-m3"] {
            assert!(check(name).unwrap_err().contains("\"force\": true"));
        }
    }
}
