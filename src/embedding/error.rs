//! What can go wrong between a text and its vector, said for two readers: the code, which asks
//! [`EmbeddingError::is_transient`], and the person, who gets one sentence with the remedy in it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::name::{ModelName, ModelNameError};

/// An error of the embedding room. Cheap to clone, since one failed load or batch may be reported to many jobs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbeddingError {
    /// The model name of a job is malformed.
    #[error(transparent)]
    Name(#[from] ModelNameError),

    /// No folder with the model's files exists.
    #[error("model {name} is not on this machine (looked in {}): {remedy}", List(.looked_in))]
    ModelNotFound {
        name: ModelName,
        looked_in: Vec<PathBuf>,
        remedy: String,
    },

    /// A file of the model is missing, malformed, or asks for something that is not supported.
    #[error("model file {} cannot be used: {reason}", .path.display())]
    ModelUnusable { path: PathBuf, reason: String },

    /// A file could not be read for a reason of the operating system.
    #[error("cannot read {}: {source}; check that the file exists and that the daemon may read it", .path.display())]
    Io {
        path: PathBuf,
        source: Arc<io::Error>,
    },

    /// The ONNX Runtime library is nowhere to be found.
    #[error(
        "the ONNX Runtime library was not found (looked in {}): run `make setup`, or install onnxruntime 1.20 or newer \
         and point ORT_DYLIB_PATH at its {}",
        List(.looked_in),
        super::runtime::LIBRARY_NAME
    )]
    RuntimeNotFound { looked_in: Vec<PathBuf> },

    /// The ONNX Runtime library was found but does not load, or is too old.
    #[error("the ONNX Runtime library {} cannot be used: {reason}; install onnxruntime 1.20 or newer for this platform", .path.display())]
    RuntimeUnusable { path: PathBuf, reason: String },

    /// The operating system gave no thread for inference.
    #[error("cannot start an inference thread: {0}; raise the process limit or lower --threads")]
    Threads(Arc<io::Error>),

    /// The tokenizer refused a text.
    #[error("the tokenizer of model {model} failed on this text: {reason}")]
    Tokenizer { model: ModelName, reason: String },

    /// ONNX Runtime failed on a batch, and again on this text alone.
    #[error("inference with model {model} failed: {reason}")]
    Inference { model: ModelName, reason: String },

    /// The model computed infinities or NaN for this text.
    #[error(
        "model {model} computed a vector that is not finite for this text; the vector was discarded"
    )]
    NotFinite { model: ModelName },

    /// A bug: the code that embeds this text panicked.
    #[error("embedding with model {model} panicked ({reason}); please report this with the text")]
    Panicked { model: ModelName, reason: String },

    /// The engine was shut down while the text was waiting.
    #[error("the embedding engine is shut down; start the daemon again")]
    ShutDown,
}

impl EmbeddingError {
    /// Whether the same request may succeed later with nothing changed by a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ShutDown | Self::Threads(_) => true,
            Self::Io { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ),
            // ONNX Runtime reports a failed allocation by its message only.
            Self::Inference { reason, .. } => reason.contains("allocat"),
            Self::Name(_)
            | Self::ModelNotFound { .. }
            | Self::ModelUnusable { .. }
            | Self::RuntimeNotFound { .. }
            | Self::RuntimeUnusable { .. }
            | Self::Tokenizer { .. }
            | Self::NotFinite { .. }
            | Self::Panicked { .. } => false,
        }
    }

    /// Whether the text itself is to blame: others can be embedded all the same.
    #[must_use]
    pub fn is_of_one_text(&self) -> bool {
        !self.is_transient()
            && matches!(
                self,
                Self::Tokenizer { .. }
                    | Self::Inference { .. }
                    | Self::NotFinite { .. }
                    | Self::Panicked { .. }
            )
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn unusable(path: &Path, reason: impl fmt::Display) -> Self {
        Self::ModelUnusable {
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }
}

/// Shows paths as "a, b, c".
struct List<'a>(&'a [PathBuf]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_is_definite_and_names_every_place() {
        let error = EmbeddingError::ModelNotFound {
            name: "acme/model".parse().unwrap(),
            looked_in: vec!["/a".into(), "/b".into()],
            remedy: "fetch it".into(),
        };
        assert!(!error.is_transient());
        assert_eq!(
            error.to_string(),
            "model acme/model is not on this machine (looked in /a, /b): fetch it"
        );
    }

    #[test]
    fn a_busy_file_system_is_transient_and_a_missing_file_is_not() {
        let of = |kind| EmbeddingError::io(Path::new("/m"), io::Error::from(kind));
        assert!(of(io::ErrorKind::Interrupted).is_transient());
        assert!(!of(io::ErrorKind::NotFound).is_transient());
    }
}
