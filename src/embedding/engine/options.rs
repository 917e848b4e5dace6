//! Settings of the engine.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::embedding::hub::HubSettings;
use crate::embedding::local::provider::group::DeviceGroup;
use crate::embedding::yielding::Yielding;

/// Padded tokens in a batch. Measured on CPUs: 512 is the best of 128 to 16384.
pub(super) const DEFAULT_BATCH_TOKENS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// About 40,000 vectors of 384 dimensions.
pub(super) const DEFAULT_CACHE_BYTES: u64 = 64 << 20;

/// Settings of an [`Engine`](crate::embedding::Engine).
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Number of inference threads. Default: the number of cores that the process may use.
    pub threads: Option<NonZeroUsize>,
    /// Whether a run of the model is divided among inference threads. A lone text is ready sooner, and many at once are
    /// not.
    pub divides_runs: bool,
    /// The ONNX Runtime library, or the folder that holds it. Default: see [`EngineOptions::data_path`].
    pub runtime_library: Option<PathBuf>,
    /// The daemon's data folder. The ONNX Runtime library is searched in its `lib` first, then in the system's folders.
    pub data_path: PathBuf,
    /// What runs the models, in the order of preference: the first one that is usable. Default: the CPU.
    pub providers: Vec<DeviceGroup>,
    /// Maximum number of padded tokens in a batch. Default: 512, and what is best of 1,024 to 65,536 on a device with a memory of its own.
    pub batch_tokens: Option<NonZeroUsize>,
    /// Whether inference yields to other users of the processors. Default: down to a tenth of its cores.
    pub yielding: Yielding,
    /// Memory for vectors of texts that may come again, in bytes. Default: 64 MiB; 0 keeps none.
    pub cache_bytes: Option<u64>,
    /// The hub that models are downloaded from at their first use. Default: none, and nothing is downloaded.
    pub hub: Option<HubSettings>,
}
