//! Reads from a model's folder, and never from outside it.
//!
//! A model's files come from a download and may name other files (`modules.json` names folders, the configuration names
//! the graph). Those names are data of a third party, so they must not lead out of the folder.

use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use super::error::EmbeddingError;

/// Joins a path that a model's file gives to `folder`; `None` if it would leave the folder.
pub(crate) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    plain.then(|| folder.join(path))
}

/// Reads a JSON file; `None` if it does not exist.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_from_a_file_never_leaves_the_folder() {
        let folder = Path::new("/models/acme");
        assert_eq!(inside(folder, "1_Pooling"), Some(folder.join("1_Pooling")));
        assert_eq!(inside(folder, ""), Some(folder.join("")));
        for path in ["/etc/passwd", "../other", "a/../../other"] {
            assert_eq!(inside(folder, path), None, "{path}");
        }
    }
}
