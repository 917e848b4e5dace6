//! What tells two models apart: a hash of everything in a model's folder that decides its vectors.
//!
//! Jobs remember it with their vectors, so it must not depend on the machine, on dates or on the folder's place.

use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::error::EmbeddingError;
use super::files::ModelFiles;
use super::modules::Step;

/// Hashes the small files whole and the graph, with external data beside it, whole too: xxh3 reads as fast as the
/// page cache gives, and this pass brings the file into it for ONNX Runtime. On the way it looks for a known trap.
pub(crate) fn identify(folder: &Path, files: &ModelFiles) -> Result<String, EmbeddingError> {
    let mut hash = Xxh3Default::new();
    let base = files.tokenizer.parent().unwrap_or(folder);
    let small = [
        folder.join("modules.json"),
        folder.join("config_sentence_transformers.json"),
        base.join("config.json"),
        base.join("tokenizer.json"),
    ];
    for path in small {
        // A missing file is a fact as well, and differs from an empty one.
        match std::fs::read(&path) {
            Ok(bytes) => {
                hash.update(&(bytes.len() as u64).to_le_bytes());
                hash.update(&bytes);
            }
            Err(_) => hash.update(&u64::MAX.to_le_bytes()),
        }
    }
    let facts = (
        files.max_tokens,
        files.lower_case,
        &files.pooling,
        files.include_prompt,
    );
    hash.update(format!("{facts:?} {}", files.steps.len()).as_bytes());
    for step in &files.steps {
        if let Step::Dense(layer) = step {
            hash_file(&layer.join("model.safetensors"), &mut hash, |_| {})?;
        }
    }

    let needle = memchr::memmem::Finder::new("DynamicQuantizeLinear");
    let mut quantised = false;
    for path in graph_files(&files.onnx)? {
        hash_file(&path, &mut hash, |stretch| {
            quantised |= needle.find(stretch).is_some()
        })?;
    }
    if quantised {
        tracing::warn!(
            graph = %files.onnx.display(),
            "the model quantises dynamically: the vector of a text depends on the other texts of its batch; \
             prefer a float32 export"
        );
    }
    Ok(format!("{:016x}", hash.digest()))
}

/// The graph and the external data that exporters put beside it (`model.onnx_data`, `model.onnx.data`).
pub(crate) fn graph_files(graph: &Path) -> Result<Vec<PathBuf>, EmbeddingError> {
    let (Some(folder), Some(name)) = (
        graph.parent(),
        graph.file_name().and_then(|name| name.to_str()),
    ) else {
        return Ok(vec![graph.to_path_buf()]);
    };
    let entries = std::fs::read_dir(folder).map_err(|error| EmbeddingError::io(folder, error))?;
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|other| other.starts_with(name))
        })
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with(".partial"))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

/// Feeds a file to the hash, showing each stretch to `look`, with enough overlap for a short name to be seen whole.
fn hash_file(
    path: &Path,
    hash: &mut Xxh3Default,
    mut look: impl FnMut(&[u8]),
) -> Result<(), EmbeddingError> {
    const STRETCH: usize = 1 << 20;
    const OVERLAP: usize = 64;
    let error = |error| EmbeddingError::io(path, error);
    let mut file = std::fs::File::open(path).map_err(error)?;
    let mut buffer = vec![0; OVERLAP + STRETCH];
    loop {
        let read = file.read(&mut buffer[OVERLAP..]).map_err(error)?;
        if read == 0 {
            return Ok(());
        }
        hash.update(&buffer[OVERLAP..OVERLAP + read]);
        look(&buffer[..OVERLAP + read]);
        buffer.copy_within(read..read + OVERLAP, 0);
    }
}
