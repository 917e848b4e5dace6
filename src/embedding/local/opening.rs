//! How the sessions of a graph are made: when a model is loaded, and again when its device was lost.

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::pooling_nodes::PoolingNodes;
use super::provider::choice::ExecutionProvider;
use super::provider::placement::{Placement, PlacementLines};
use super::provider::plan::SessionPlan;
use super::provider::{fault, registration};
use crate::embedding::error::EmbeddingError;
use crate::embedding::files::external_data::{Malformed, external_data};

/// What the sessions of a graph are made of.
pub(crate) struct Opening {
    pub environment: Environment,
    pub provider: ExecutionProvider,
    pub plan: SessionPlan,
    /// The graph.
    pub path: PathBuf,
    /// With these nodes the graph pools, too.
    pub pooling: Option<PoolingNodes>,
}

impl Opening {
    /// Reads and optimizes the graph, once for each session; takes about a second for a hundred megabytes. Returns at least
    /// one session.
    ///
    /// # Errors
    ///
    /// If the file is unusable, or unusable for this provider.
    pub(crate) fn sessions(&self) -> Result<Vec<Session>, EmbeddingError> {
        let path = &self.path;
        fault::check_device(&self.provider)
            .map_err(|error| EmbeddingError::unusable(path, error))?;
        let appended = self.pooling.as_ref().map(|nodes| nodes.behind(path));
        let appended = appended
            .transpose()
            .map_err(|error| EmbeddingError::io(path, error))?;
        let build = |_| {
            builder(self)
                .and_then(|builder| commit(self, builder, appended.as_deref()))
                .map_err(|error| EmbeddingError::unusable(path, load_failure(path, &error)))
        };
        (0..self.plan.sessions.max(1)).map(build).collect()
    }

    /// Opens a session for a moment, to see how its graph is divided between the provider and the processor. `None` where
    /// ONNX Runtime does not tell.
    pub(crate) fn placement(&self) -> Option<Placement> {
        let appended = match &self.pooling {
            Some(nodes) => Some(nodes.behind(&self.path).ok()?),
            None => None,
        };
        let lines = PlacementLines::default();
        let session = builder(self)
            .and_then(|builder| lines.listen(builder))
            .and_then(|builder| commit(self, builder, appended.as_deref()));
        session.ok()?;
        lines.placement()
    }
}

/// How long a thread of a divided run spins for the next step, in microseconds. To wake it takes about as long. By default it
/// spins for a millisecond, time that the database on the same machine and other runs miss: two runs at once had 0.8 of
/// their throughput.
const SPIN_MICROS: &str = "20";

/// Where the weights are that a graph keeps in other files, for one that does not come from a file itself
/// (`onnxruntime_session_options_config_keys.h`).
const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

/// Threads that spin steal time from others, so they do so only between the steps of a divided run.
fn builder(opening: &Opening) -> ort::Result<SessionBuilder> {
    let (provider, threads) = (&opening.provider, opening.plan.threads);
    let spins = if threads > 1 { "1" } else { "0" };
    let builder = SessionBuilder::new(&opening.environment)?;
    Ok(registration::register(provider, threads, builder)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_config_entry("session.intra_op.allow_spinning", spins)?
        .with_config_entry("session.intra_op.spin_duration_us", SPIN_MICROS)?
        .with_config_entry("session.force_spinning_stop", "1")?
        .with_config_entry("session.inter_op.allow_spinning", "0")?)
}

/// The session for a graph, which is in memory where something is appended to it.
fn commit(
    opening: &Opening,
    mut builder: SessionBuilder,
    appended: Option<&[u8]>,
) -> ort::Result<Session> {
    let path = &opening.path;
    let Some(bytes) = appended else {
        return builder.commit_from_file(path);
    };
    let folder = path.parent().unwrap_or(Path::new(".")).to_string_lossy();
    builder
        .with_config_entry(WEIGHTS_FOLDER, folder)?
        .commit_from_memory(bytes)
}

/// Why a graph does not load, for a person: ONNX Runtime calls every damage "Protobuf parsing failed".
fn load_failure(path: &Path, error: &ort::Error) -> String {
    let size = path.metadata().map_or(0, |metadata| metadata.len());
    let message = error.to_string();
    match external_data(path) {
        _ if size == 0 => "it is empty; download it again".into(),
        Err(Malformed::Truncated) => format!(
            "it ends in the middle of the graph, after {size} bytes; its download was cut off, so download it again"
        ),
        Err(Malformed::NotAGraph) => {
            format!("it is not an ONNX graph ({size} bytes); download it again: {message}")
        }
        // onnxruntime issue 27353: 1.24.0 and 1.24.1 resolve links before they compare.
        Ok(_) if message.contains("escapes") => format!(
            "{message}; some versions of ONNX Runtime refuse weights behind links: use version 1.24.2 or newer, or put \
             the files themselves in the place of the links"
        ),
        _ => message,
    }
}
