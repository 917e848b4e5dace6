//! Computes embeddings: texts in, vectors out.
//!
//! This module has the model files, the tokenizers, ONNX Runtime and one inference engine for all jobs. It knows
//! nothing of PostgreSQL.
//!
//! ```text
//!  ModelCatalog ──▶ Engine::model ──▶ Model       finds a model on disk and loads it once
//!                                       │
//!                Engine::queue ◀────────┘
//!                  │        │
//!             Submitter  Completions               what a job holds: texts go in, vectors come out
//!                  ▼        ▲
//!        queue of batches ──▶ inference threads    flows take turns, live texts before backfill
//! ```
//!
//! A [`ModelCatalog`] finds models and explains what is missing:
//!
//! ```
//! use lantern::embedding::{ModelCatalog, EmbeddingError, ModelName};
//!
//! let catalog = ModelCatalog::new("/nonexistent/models".into());
//! // The names that the older, trigger-based daemon used resolve to the published name.
//! let name: ModelName = "all-MiniLM-L6-v2".parse()?;
//! assert_eq!(name.as_str(), ModelName::DEFAULT);
//! assert!(matches!(catalog.locate(&name), Err(EmbeddingError::ModelNotFound { .. })));
//! # Ok::<(), EmbeddingError>(())
//! ```
//!
//! An [`Engine`] loads each model once and runs it on its own threads:
//!
//! ```no_run
//! # async fn example() -> Result<(), lantern::embedding::EmbeddingError> {
//! use lantern::embedding::{ModelCatalog, Engine, EngineOptions, ModelName, TextRole};
//!
//! let options = EngineOptions { data_path: "/var/lib/lantern".into(), ..EngineOptions::default() };
//! let engine = Engine::new(ModelCatalog::new("/var/lib/lantern/models".into()), options);
//! let model = engine.model(&ModelName::DEFAULT.parse()?).await?;
//! let vectors = engine.embed(&model, TextRole::Query, vec!["how do slots work?".into()]).await?;
//! assert_eq!(vectors[0].len(), model.dimensions());
//! # Ok(())
//! # }
//! ```

mod catalog;
mod channel;
mod engine;
mod error;
mod files;
mod flow_counters;
mod https;
mod hub;
mod local;
mod model;
mod name;
mod options;
mod pooling;
mod remote;
mod requested;
mod role;
mod schedule;
mod text_tokens;
pub mod yielding;

pub use catalog::model_catalog::{Location, ModelCatalog, ModelEntry};
pub use channel::{Completions, Submitter};
pub use engine::{Engine, EngineOptions, Inference};
pub use error::EmbeddingError;
pub use flow_counters::{FlowCounters, FlowTotals};
pub use hub::{DownloadError, DownloadEvent, DownloadFailure, Downloaded, HubSettings};
pub use local::device::{DeviceState, Outage};
pub use local::provider::choice::{ExecutionProvider, ProviderNameError};
pub use local::provider::group::DeviceGroup;
#[doc(hidden)]
pub use local::provider::registration::register as register_provider;
#[doc(hidden)]
pub use local::runtime::environment as onnx_environment;
#[doc(hidden)]
pub use local::tokenizer::TextTokenizer;
pub use model::Model;
pub use name::{ModelName, ModelNameError};
pub use options::{InvalidOptions, ModelOptions};
pub use pooling::{Pooling, PoolingMode};
#[doc(hidden)]
pub use remote::{Fleet as RemoteFleet, Patience as RemotePatience, RemoteVector};
pub use remote::{RemoteError, RemoteFailure, RemoteOptions, ServerState, ServiceKey};
pub use requested::ForeignTokens;
pub use role::TextRole;
pub use schedule::queue::Priority;
pub use schedule::scheduler::Embedded;
pub use text_tokens::TextTokens;
