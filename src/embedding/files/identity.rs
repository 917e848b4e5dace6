//! The identity of a model: a hash of everything in its folder that decides its vectors.
//!
//! Jobs store it with their vectors, so the same files must give the same identity on every machine, whatever their
//! dates and wherever the folder is. **Never change what is hashed, or how**: every stored vector would count as stale.

use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::external_data::external_data;
use super::folder::{check_content, inside};
use super::modules::Step;
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::model_files::ModelFiles;
use crate::embedding::local::tokenizer::TruncationSide;

/// Sixteen hexadecimal digits over the small files, the graph and its external data.
///
/// The graph is hashed as a whole: xxh3 is as fast as the page cache, and this pass reads the file into it for ONNX
/// Runtime. The same pass looks for dynamic quantization, about which it warns.
///
/// # Errors
///
/// If the graph or the weights of a dense layer cannot be read.
pub(crate) fn identify(
    folder: &Path,
    files: &ModelFiles,
    truncation: TruncationSide,
) -> Result<String, EmbeddingError> {
    let mut hash = Xxh3Default::new();
    hash_small_files(folder, files, &mut hash);
    // What decides vectors in the other small files: their contents also have fields that do not.
    let facts = (
        files.max_tokens,
        files.lower_case,
        &files.pooling,
        files.include_prompt,
    );
    hash.update(format!("{facts:?} {}", files.steps.len()).as_bytes());
    // Only where it is not what every model had when the first identities were stored.
    if truncation == TruncationSide::Left {
        hash.update(b"truncation left");
    }
    for step in &files.steps {
        if let Step::Dense(layer) = step {
            hash_file(&layer.join("model.safetensors"), &mut hash, |_| {})?;
        }
    }
    hash_graph(&files.onnx, &mut hash)?;
    Ok(format!("{:016x}", hash.digest()))
}

fn hash_small_files(folder: &Path, files: &ModelFiles, hash: &mut Xxh3Default) {
    let base = files.tokenizer.parent().unwrap_or(folder);
    let small = [
        folder.join("modules.json"),
        folder.join("config_sentence_transformers.json"),
        base.join("config.json"),
        base.join("tokenizer.json"),
    ];
    for path in small {
        // A missing file counts too, and differs from an empty one.
        match std::fs::read(&path) {
            Ok(bytes) => {
                hash.update(&(bytes.len() as u64).to_le_bytes());
                hash.update(&bytes);
            }
            Err(_) => hash.update(&u64::MAX.to_le_bytes()),
        }
    }
}

/// Hashes the graph and its external data. Warns about a graph that is quantized dynamically.
fn hash_graph(graph: &Path, hash: &mut Xxh3Default) -> Result<(), EmbeddingError> {
    // The operator's name stands in the graph's protobuf as plain text.
    let operator = memchr::memmem::Finder::new("DynamicQuantizeLinear");
    let mut quantized = false;
    for path in graph_files(graph)? {
        hash_file(&path, hash, |chunk| {
            quantized |= operator.find(chunk).is_some();
        })?;
    }
    if quantized {
        tracing::warn!(
            graph = %graph.display(),
            "the model is quantized dynamically, so the vector of a text depends on the other texts of its batch; \
             use a float32 export instead"
        );
    }
    Ok(())
}

/// The graph and its external data. First the files that exporters put beside it (`model.onnx_data`,
/// `model.onnx.data`), sorted by name, whether the graph names them or not; then those of any other name that it does.
///
/// # Errors
///
/// If a file that the graph names is missing, not the file itself, or too short.
pub(crate) fn graph_files(graph: &Path) -> Result<Vec<PathBuf>, EmbeddingError> {
    let mut files = files_beside(graph)?;
    // A graph that is damaged is refused by ONNX Runtime, and then explained.
    let named = external_data(graph).unwrap_or_default();
    let folder = graph.parent().unwrap_or(Path::new(""));
    for (location, needed) in named {
        let unusable = |reason: String| Err(EmbeddingError::unusable(graph, reason));
        let Some(path) = inside(folder, &location) else {
            return unusable(format!(
                "its weights are in {location:?}, outside of its folder"
            ));
        };
        let Ok(metadata) = path.metadata() else {
            return unusable(format!(
                "its weights are in the file {location} beside it, which is missing; fetch that file too"
            ));
        };
        check_content(&path)?;
        if metadata.len() < needed {
            return Err(EmbeddingError::unusable(
                &path,
                format!(
                    "it ends after {} bytes, and the graph needs {needed}; download it again",
                    metadata.len()
                ),
            ));
        }
        if !files.contains(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

fn files_beside(graph: &Path) -> Result<Vec<PathBuf>, EmbeddingError> {
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
        // Left behind by an interrupted download.
        .filter(|entry| !entry.file_name().to_string_lossy().ends_with(".partial"))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    Ok(files)
}

/// Feeds a file to the hash and shows each chunk to `inspect`. Chunks overlap, so that a short name on a border is seen
/// whole.
fn hash_file(
    path: &Path,
    hash: &mut Xxh3Default,
    mut inspect: impl FnMut(&[u8]),
) -> Result<(), EmbeddingError> {
    const CHUNK: usize = 1 << 20;
    const OVERLAP: usize = 64;
    let error = |error| EmbeddingError::io(path, error);
    let mut file = std::fs::File::open(path).map_err(error)?;
    let mut buffer = vec![0; OVERLAP + CHUNK];
    loop {
        let read = file.read(&mut buffer[OVERLAP..]).map_err(error)?;
        if read == 0 {
            return Ok(());
        }
        hash.update(&buffer[OVERLAP..OVERLAP + read]);
        inspect(&buffer[..OVERLAP + read]);
        buffer.copy_within(read..read + OVERLAP, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::files::model_files::{Padding, Prompts};
    use crate::embedding::files::tasks::Tasks;
    use crate::embedding::local::signature::PastShape;
    use crate::embedding::pooling::{Pooling, PoolingMode};

    /// The files of a small model, with a graph of 3 MiB and external data.
    fn model(folder: &Path) -> ModelFiles {
        let layer = folder.join("2_Dense");
        std::fs::create_dir(&layer).unwrap();
        for (name, content) in [
            ("modules.json", b"[]".to_vec()),
            ("config.json", b"{}".to_vec()),
            ("tokenizer.json", b"{\"version\":\"1.0\"}".to_vec()),
            ("2_Dense/model.safetensors", vec![7; 100]),
            (
                "model.onnx",
                (0..3 << 20).map(|place| (place % 251) as u8).collect(),
            ),
            ("model.onnx_data", vec![1; 10]),
            ("model.onnx.partial", vec![2; 10]),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        ModelFiles {
            onnx: folder.join("model.onnx"),
            tokenizer: folder.join("tokenizer.json"),
            is_static: false,
            max_tokens: 256,
            positions: None,
            first_position: 0,
            past: PastShape::default(),
            may_be_cut: false,
            lower_case: false,
            pooling: Pooling::new(vec![PoolingMode::Mean]),
            include_prompt: true,
            steps: vec![Step::Normalize, Step::Dense(layer)],
            prompts: Prompts::default(),
            tasks: Tasks::default(),
            pad: Padding::default(),
            dimensions: None,
            truncation_side: None,
            assumption: None,
        }
    }

    fn identity(folder: &Path, files: &ModelFiles) -> String {
        identify(folder, files, TruncationSide::Right).unwrap()
    }

    /// Databases hold this value: a different one marks every vector of every user as stale.
    #[test]
    fn the_identity_of_the_same_files_is_the_same_in_every_version() {
        let folder = tempfile::tempdir().unwrap();
        let files = model(folder.path());
        assert_eq!(identity(folder.path(), &files), "4ec0a879271b3fb3");
    }

    #[test]
    fn every_file_that_decides_vectors_changes_the_identity() {
        let folder = tempfile::tempdir().unwrap();
        let files = model(folder.path());
        let mut before = identity(folder.path(), &files);
        for name in [
            "config_sentence_transformers.json",
            "tokenizer.json",
            "2_Dense/model.safetensors",
            "model.onnx",
            "model.onnx_data",
        ] {
            std::fs::write(folder.path().join(name), "changed").unwrap();
            let after = identity(folder.path(), &files);
            assert_ne!(after, before, "{name}");
            before = after;
        }
        std::fs::write(folder.path().join("model.onnx.partial"), "changed").unwrap();
        std::fs::write(folder.path().join("README.md"), "changed").unwrap();
        assert_eq!(identity(folder.path(), &files), before);
    }

    #[test]
    fn the_side_of_truncation_changes_the_identity() {
        let folder = tempfile::tempdir().unwrap();
        let files = model(folder.path());
        let left = identify(folder.path(), &files, TruncationSide::Left).unwrap();
        assert_ne!(left, identity(folder.path(), &files));
    }

    /// A graph with one initializer, whose data is in the file `weights.bin`.
    const EXTERNAL: &[u8] = b"\x3a\x1b\x2a\x19\x6a\x17\x0a\x08location\x12\x0bweights.bin";

    #[test]
    fn weights_of_any_name_are_part_of_the_identity() {
        let folder = tempfile::tempdir().unwrap();
        let files = model(folder.path());
        std::fs::write(&files.onnx, EXTERNAL).unwrap();
        let weights = folder.path().join("weights.bin");
        let missing = identify(folder.path(), &files, TruncationSide::Right).unwrap_err();
        assert!(missing.to_string().contains("weights.bin"), "{missing}");
        std::fs::write(&weights, "one").unwrap();
        let before = identity(folder.path(), &files);
        std::fs::write(&weights, "two").unwrap();
        assert_ne!(identity(folder.path(), &files), before);
        std::fs::write(&weights, "version https://git-lfs.github.com/spec/v1\n").unwrap();
        let pointer = identify(folder.path(), &files, TruncationSide::Right).unwrap_err();
        assert!(pointer.to_string().contains("git lfs pull"), "{pointer}");
    }

    #[test]
    fn a_name_on_the_border_of_two_chunks_is_seen_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = vec![b' '; (1 << 20) - 4];
        content.extend_from_slice(b"DynamicQuantizeLinear");
        std::fs::write(file.path(), content).unwrap();
        let mut seen = false;
        hash_file(file.path(), &mut Xxh3Default::new(), |chunk| {
            seen |= memchr::memmem::find(chunk, b"DynamicQuantizeLinear").is_some();
        })
        .unwrap();
        assert!(seen);
    }
}
