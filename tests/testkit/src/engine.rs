//! The product's engine in this process, without a database around it.

use std::path::Path;

use lantern::embedding::yielding::Yielding;
use lantern::embedding::{EmbeddingError, Engine, EngineOptions, Model, ModelCatalog};

/// The model that `make setup` fetches.
pub const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// An engine that does not yield, with the default model loaded, from the models and libraries in `data_path`.
///
/// # Errors
///
/// Where the model or ONNX Runtime is missing or cannot be loaded.
pub async fn load(data_path: &Path) -> Result<(Engine, Model), EmbeddingError> {
    let options = EngineOptions {
        yielding: Yielding::Off,
        ..EngineOptions::default()
    };
    load_with(data_path, options).await
}

/// As [`load`], an engine with these options.
///
/// # Errors
///
/// Those of [`load`].
pub async fn load_with(
    data_path: &Path,
    options: EngineOptions,
) -> Result<(Engine, Model), EmbeddingError> {
    let options = EngineOptions {
        data_path: data_path.to_owned(),
        ..options
    };
    let engine = Engine::new(ModelCatalog::new(data_path.join("models")), options);
    let name = MODEL.parse().expect("a model name");
    let model = engine.model(&name).await?;
    Ok((engine, model))
}
