//! The product's engine with the default model, in this process.

use lantern::embedding::{Catalogue, Engine, EngineOptions, Model, ModelName};

use crate::support::data_path::runtime;

pub async fn load() -> (Engine, Model) {
    let options = EngineOptions {
        data_path: runtime(),
        ..EngineOptions::default()
    };
    let engine = Engine::new(Catalogue::new(runtime().join("models")), options);
    let name: ModelName = ModelName::DEFAULT.parse().expect("a name");
    let model = engine.model(&name).await.expect("run `make setup` first");
    (engine, model)
}
