//! Texts in, vectors out: model files, tokenizers, ONNX Runtime, and one engine for all jobs.
//!
//! This room knows no PostgreSQL. A [`Catalogue`] finds models on disk, an [`Engine`] loads each once and runs it on its
//! own threads, and a job holds two ends of it: a [`Submitter`] for texts and [`Completions`] for vectors.
//!
//! ```no_run
//! # async fn example() -> Result<(), lantern::embedding::EmbeddingError> {
//! use lantern::embedding::{Catalogue, Engine, EngineOptions, ModelName, TextRole};
//!
//! let options = EngineOptions { data_path: "/var/lib/lantern".into(), ..EngineOptions::default() };
//! let engine = Engine::new(Catalogue::new("/var/lib/lantern/models".into()), options);
//! let model = engine.model(&ModelName::DEFAULT.parse()?).await?;
//! let vectors = engine.embed(&model, TextRole::Query, vec!["how do slots work?".into()]).await?;
//! assert_eq!(vectors[0].len(), model.dimensions());
//! # Ok(())
//! # }
//! ```

mod catalogue;
mod channel;
mod dense;
mod engine;
mod error;
mod files;
mod folder;
mod identity;
mod known;
mod model;
mod modules;
mod name;
mod pooling;
mod queue;
mod runtime;
mod scheduler;
mod session;
mod tokenizer;
mod worker;

pub use catalogue::{Catalogue, Location, ModelEntry};
pub use channel::{Completions, Submitter};
pub use engine::{Engine, EngineOptions};
pub use error::EmbeddingError;
pub use model::{Model, TextRole};
pub use name::{ModelName, ModelNameError};
pub use pooling::{Pooling, PoolingMode};
pub use queue::Priority;
#[doc(hidden)]
pub use runtime::environment as onnx_environment;
pub use scheduler::Embedded;
#[doc(hidden)]
pub use tokenizer::TextTokenizer;
