//! What can go wrong between a text and its vector.
//!
//! An error has two readers. The code asks [`EmbeddingError::is_transient`] and [`EmbeddingError::concerns_one_text`];
//! a person reads one sentence that names the object, the cause and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hub::DownloadError;
use super::local::provider::choice::ExecutionProvider;
use super::local::provider::group::DeviceGroup;
use super::name::{ModelName, ModelNameError};
use super::remote::RemoteError;

/// ONNX Runtime has no status code for a failed allocation (`OrtErrorCode` in `onnxruntime_c_api.h`): only its message tells,
/// and on a device that of the device's own library, such as `CUBLAS_STATUS_ALLOC_FAILED` or `E_OUTOFMEMORY`.
const NO_MEMORY: [&str; 5] = [
    "allocat",
    "alloc_failed",
    "out of memory",
    "outofmemory",
    "not enough memory",
];

/// An error of the embedding engine. Cheap to clone, because one failed load or batch is reported to many jobs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EmbeddingError {
    /// A model name is malformed.
    #[error(transparent)]
    Name(#[from] ModelNameError),

    /// No folder with the model's files exists.
    #[error(
        "model {} is not on this machine (looked in {}): {remedy}",
        .name.as_written(),
        PathList(.looked_in)
    )]
    ModelNotFound {
        /// The model.
        name: ModelName,
        /// The folders that were searched.
        looked_in: Vec<PathBuf>,
        /// How to get the model.
        remedy: String,
    },

    /// The model could not be downloaded.
    #[error(transparent)]
    Download(#[from] Box<DownloadError>),

    /// A download was asked for, and downloads are switched off.
    #[error(
        "model {} is not downloaded: --offline, LANTERN_OFFLINE or HF_HUB_OFFLINE is set", .name.as_written()
    )]
    Offline {
        /// The model.
        name: ModelName,
    },

    /// The model is none that can be run here.
    #[error("model {} is not supported: {reason}", .name.as_written())]
    Unsupported {
        /// The model.
        name: ModelName,
        /// What is missing, and what to do.
        reason: &'static str,
    },

    /// A file of the model is missing, malformed, or requires something that is not supported.
    #[error("model file {} cannot be used: {reason}", .path.display())]
    ModelUnusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// What a job asks of the model does not suit it.
    #[error("these options cannot be used with the model {model}: {reason}")]
    Options {
        /// The model.
        model: ModelName,
        /// What does not suit it, and what to do.
        reason: String,
    },

    /// The operating system could not read a file.
    #[error("cannot read {}: {source}; check that the file exists and that the daemon may read it", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },

    /// The ONNX Runtime library was not found.
    #[error(
        "the ONNX Runtime library was not found (looked in {}): install onnxruntime 1.20 or newer and point \
         ORT_DYLIB_PATH at its {library}, for example: pip install --target DIR onnxruntime, and \
         ORT_DYLIB_PATH=DIR/onnxruntime/capi; in a checkout of lantern-cli, run `make setup`",
        PathList(.looked_in)
    )]
    RuntimeNotFound {
        /// The file name of the library on this platform.
        library: &'static str,
        /// The folders that were searched.
        looked_in: Vec<PathBuf>,
    },

    /// The ONNX Runtime library was found, but it does not load or is too old.
    #[error(
        "the ONNX Runtime library {} cannot be used: {reason}; install onnxruntime 1.20 or newer for this platform",
        .path.display()
    )]
    RuntimeUnusable {
        /// The library.
        path: PathBuf,
        /// The reason that the loader or ONNX Runtime gave.
        reason: String,
    },

    /// An execution provider that was asked for is not there.
    #[error(
        "the execution provider {provider} cannot be used: {reason}; {remedy}, or use --execution-provider cpu"
    )]
    ProviderUnusable {
        /// The provider.
        provider: ExecutionProvider,
        /// What is missing.
        reason: String,
        /// What to install or to check.
        remedy: &'static str,
    },

    /// An execution provider does not run the graph of this model.
    #[error(
        "the execution provider {provider} cannot run the model {model}: {reason}; use --execution-provider cpu, or an \
         export of the model that it supports"
    )]
    ProviderRefuses {
        /// The provider.
        provider: ExecutionProvider,
        /// The model.
        model: ModelName,
        /// The message of ONNX Runtime.
        reason: String,
    },

    /// The vectors of an execution provider are not those of the CPU.
    #[error(
        "the execution provider {provider} computes other vectors of the model {model} than the CPU: of {text} the \
         cosine of the two is {cosine:.4}, and at least 0.999 is needed; use --execution-provider cpu, or an export of \
         the model in another precision"
    )]
    ProviderDiffers {
        /// The provider.
        provider: ExecutionProvider,
        /// The model.
        model: ModelName,
        /// The cosine to the CPU's vector, of the vector that differs most.
        cosine: f64,
        /// Which text that is.
        text: &'static str,
    },

    /// One of several devices cannot be used, so none of them is.
    #[error(
        "{group} cannot be used, because {device} of it cannot: {error}; or leave that device out of --execution-provider {group}"
    )]
    DeviceOfGroup {
        /// All of the devices.
        group: DeviceGroup,
        /// The one that cannot be used.
        device: ExecutionProvider,
        /// Why.
        error: Box<EmbeddingError>,
    },

    /// The operating system refused to start an inference thread.
    #[error("cannot start an inference thread: {0}; raise the process limit or lower --threads")]
    Threads(Arc<io::Error>),

    /// The tokenizer failed on a text.
    #[error("the tokenizer of model {model} failed on this text: {reason}")]
    Tokenizer {
        /// The model.
        model: ModelName,
        /// The tokenizer's message.
        reason: String,
    },

    /// ONNX Runtime failed on a batch, and again on this text alone.
    #[error("inference with model {model} failed: {reason}")]
    Inference {
        /// The model.
        model: ModelName,
        /// ONNX Runtime's message.
        reason: String,
    },

    /// A device has no memory for one text alone.
    #[error(
        "the device of the execution provider {provider} has no memory for {tokens} tokens of the model {model}: {reason}; \
         free memory of the device, lower max_tokens in runtime_params, or use --execution-provider cpu"
    )]
    DeviceMemory {
        /// The provider.
        provider: ExecutionProvider,
        /// The model.
        model: ModelName,
        /// Padded tokens of the run.
        tokens: usize,
        /// ONNX Runtime's message.
        reason: String,
    },

    /// The model computed infinities or NaN for this text.
    #[error(
        "model {model} computed a vector that is not finite for this text; the vector was discarded"
    )]
    NotFinite {
        /// The model.
        model: ModelName,
    },

    /// The tokenizer finds nothing in this text.
    #[error(
        "the text has no token for the model {model}, so it has no vector; change the text, or set it to NULL"
    )]
    NoTokens {
        /// The model.
        model: ModelName,
    },

    /// The model computed a vector of zeros, which has no direction and so no distance to others.
    #[error(
        "model {model} computed a vector of length 0 for this text, which is near to no other; the vector was \
         discarded"
    )]
    ZeroVector {
        /// The model.
        model: ModelName,
    },

    /// A bug: the code that embeds this text panicked.
    #[error("embedding with model {model} panicked ({reason}); please report this with the text")]
    Panicked {
        /// The model.
        model: Arc<str>,
        /// The message of the panic.
        reason: String,
    },

    /// A server elsewhere did not embed a text.
    #[error(transparent)]
    Remote(#[from] Box<RemoteError>),

    /// The engine was shut down before the text was embedded.
    #[error("the embedding engine is shut down; start the daemon again")]
    ShutDown,
}

impl EmbeddingError {
    /// Whether the same request may succeed later without anyone's intervention. Errors that are not transient are
    /// permanent.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ShutDown | Self::Threads(_) => true,
            Self::Download(error) => error.failure.is_transient(),
            Self::Remote(error) => error.is_transient(),
            Self::Io { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ),
            Self::DeviceMemory { .. } => true,
            Self::Inference { .. } => self.is_out_of_memory(),
            Self::DeviceOfGroup { error, .. } => error.is_transient(),
            Self::Name(_)
            | Self::ModelNotFound { .. }
            | Self::Offline { .. }
            | Self::Unsupported { .. }
            | Self::ModelUnusable { .. }
            | Self::Options { .. }
            | Self::RuntimeNotFound { .. }
            | Self::RuntimeUnusable { .. }
            | Self::ProviderUnusable { .. }
            | Self::ProviderRefuses { .. }
            | Self::ProviderDiffers { .. }
            | Self::Tokenizer { .. }
            | Self::NoTokens { .. }
            | Self::NotFinite { .. }
            | Self::ZeroVector { .. }
            | Self::Panicked { .. } => false,
        }
    }

    /// Whether there was no memory for a run of the model.
    #[must_use]
    pub(crate) fn is_out_of_memory(&self) -> bool {
        let Self::Inference { reason, .. } = self else {
            return false;
        };
        let reason = reason.to_ascii_lowercase();
        NO_MEMORY.iter().any(|words| reason.contains(words))
    }

    /// Whether the text itself is at fault, so that other texts can still be embedded.
    #[must_use]
    pub fn concerns_one_text(&self) -> bool {
        if let Self::Remote(error) = self {
            return error.concerns_one_text();
        }
        !self.is_transient()
            && matches!(
                self,
                Self::Tokenizer { .. }
                    | Self::Inference { .. }
                    | Self::NoTokens { .. }
                    | Self::NotFinite { .. }
                    | Self::ZeroVector { .. }
                    | Self::Panicked { .. }
            )
    }

    /// Whether an execution provider is at fault, so that another one may do.
    #[must_use]
    pub fn concerns_provider(&self) -> bool {
        match self {
            Self::ProviderUnusable { .. }
            | Self::ProviderRefuses { .. }
            | Self::ProviderDiffers { .. } => true,
            Self::DeviceOfGroup { error, .. } => error.concerns_provider(),
            _ => false,
        }
    }

    /// Whether a service refuses the key, or wants to be paid: a person has to act, and the same request succeeds then.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Remote(error) if error.is_refusal())
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

impl From<RemoteError> for EmbeddingError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(Box::new(error))
    }
}

/// Shows paths as "a, b, c".
struct PathList<'a>(&'a [PathBuf]);

impl fmt::Display for PathList<'_> {
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
    fn the_error_of_a_missing_model_is_permanent_and_lists_the_folders_searched() {
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
    fn a_device_without_memory_is_told_by_its_message() {
        let error = |reason: &str| EmbeddingError::Inference {
            model: "acme/model".parse().unwrap(),
            reason: reason.into(),
        };
        for reason in [
            "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4194304",
            "CUDA failure 2: out of memory ; GPU=0",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
            "8007000E Not enough memory resources are available",
        ] {
            assert!(error(reason).is_out_of_memory() && error(reason).is_transient());
        }
        assert!(!error("CUDA failure 700: an illegal memory access").is_out_of_memory());
    }

    #[test]
    fn a_busy_file_system_is_transient_and_a_missing_file_is_not() {
        let io_error = |kind| EmbeddingError::io(Path::new("/m"), io::Error::from(kind));
        assert!(io_error(io::ErrorKind::Interrupted).is_transient());
        assert!(!io_error(io::ErrorKind::NotFound).is_transient());
    }
}
