//! Reading from a model's folder, and never from outside it.

use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use super::error::EmbeddingError;

/// Joins a path from a model's file, unless it would leave the folder.
pub(crate) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    plain.then(|| folder.join(path))
}

/// Reads a JSON file; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EmbeddingError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EmbeddingError::io(path, error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| EmbeddingError::unusable(path, error))
}
