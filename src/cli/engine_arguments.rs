//! The arguments that every subcommand with an embedding engine has.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::data_path;
use crate::embedding::{Engine, EngineOptions, ModelCatalog};

/// Where models and libraries are, and how many threads they may use.
#[derive(Args, Clone)]
pub struct EngineArguments {
    /// Folder of the models, the ONNX Runtime library and the private PostgreSQL [default: the user's data folder]
    #[arg(long, env = "LANTERN_DATA_PATH", value_name = "DIR")]
    data_path: Option<PathBuf>,

    /// Number of inference threads [default: the number of cores that this process may use]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl EngineArguments {
    /// The data folder: the given one, else the user's.
    pub fn data_path(&self) -> PathBuf {
        self.data_path.clone().unwrap_or_else(data_path::default)
    }

    /// The models in the data folder.
    pub fn catalog(&self) -> ModelCatalog {
        ModelCatalog::new(self.data_path().join("models"))
    }

    /// An engine for the models in the data folder. It loads nothing yet.
    pub fn engine(&self) -> Engine {
        let options = EngineOptions {
            threads: self.threads,
            data_path: self.data_path(),
            ..EngineOptions::default()
        };
        Engine::new(self.catalog(), options)
    }
}
