//! Reads from a model's folder, and never from outside it.
//!
//! A model's files come from a download and may name other files (`modules.json` names folders, the configuration names
//! the graph). Those names are data of a third party, so they must not lead out of the folder.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::embedding::error::EmbeddingError;

/// Joins a path that a model's file gives to `folder`; `None` if it would leave the folder.
pub(crate) fn inside(folder: &Path, path: &str) -> Option<PathBuf> {
    let plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    plain.then(|| folder.join(path))
}

/// Refuses what tools leave in the place of a model's file, whose contents would only be called malformed.
///
/// # Errors
///
/// If the file is a stand-in for another one, or cannot be read.
pub(crate) fn check_content(path: &Path) -> Result<(), EmbeddingError> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(|error| EmbeddingError::io(path, error))?;
    let read = file.take(LONGEST_HEAD).read_to_end(&mut head);
    read.map_err(|error| EmbeddingError::io(path, error))?;
    match stand_in(&head) {
        Some(what) => Err(EmbeddingError::unusable(path, what)),
        None => Ok(()),
    }
}

/// As much of a file as shows what it is.
const LONGEST_HEAD: u64 = 256;

/// What a file is that begins like this, if it stands in for another one, and what to do.
fn stand_in(head: &[u8]) -> Option<&'static str> {
    // The specification of Git LFS: "The first key is always `version`".
    if head.starts_with(b"version https://git-lfs") {
        return Some(
            "it is a Git LFS pointer, not the file itself; run `git lfs pull` in the folder that you have cloned, or \
             download the file",
        );
    }
    let text = head.trim_ascii_start();
    let begins =
        |tag: &[u8]| text.len() >= tag.len() && text[..tag.len()].eq_ignore_ascii_case(tag);
    (begins(b"<!doctype") || begins(b"<html") || begins(b"<?xml"))
        .then_some("it is a web page, not the file itself; download the file again")
}

/// Reads a JSON file; `None` if it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EmbeddingError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(EmbeddingError::io(path, error)),
    };
    if let Some(what) = stand_in(&bytes[..bytes.len().min(LONGEST_HEAD as usize)]) {
        return Err(EmbeddingError::unusable(path, what));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| EmbeddingError::unusable(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_a_file_is_named() {
        let said = |content: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            let json = read_json::<serde_json::Value>(file.path()).map(drop);
            let content = check_content(file.path()).map_err(|error| error.to_string());
            assert_eq!(json.is_err(), content.is_err(), "{content:?}");
            content
        };
        let pointer =
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90405214\n";
        assert!(said(pointer).unwrap_err().contains("git lfs pull"));
        assert!(
            said("\n<!DOCTYPE html><html>")
                .unwrap_err()
                .contains("a web page")
        );
        assert_eq!(said("{}"), Ok(()));
    }

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
