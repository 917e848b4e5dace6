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
    ///
    /// # Errors
    /// If the user has none.
    pub fn data_path(&self) -> anyhow::Result<PathBuf> {
        self.data_path.clone().map_or_else(data_path::default, Ok)
    }

    /// The models in the data folder.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn catalog(&self) -> anyhow::Result<ModelCatalog> {
        Ok(ModelCatalog::new(self.data_path()?.join("models")))
    }

    /// An engine for the models in the data folder. It loads nothing yet.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn engine(&self) -> anyhow::Result<Engine> {
        let data_path = self.data_path()?;
        data_path::warn_of_other_writers(&data_path);
        let options = EngineOptions {
            threads: self.threads,
            data_path,
            ..EngineOptions::default()
        };
        Ok(Engine::new(self.catalog()?, options))
    }
}
