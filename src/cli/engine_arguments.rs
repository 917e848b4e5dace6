//! The arguments that every subcommand with an embedding engine has.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, ValueEnum};

use super::data_path;
use crate::byte_size;
use crate::embedding::yielding::Yielding;
use crate::embedding::{DeviceGroup, Engine, EngineOptions, HubSettings, ModelCatalog};

/// Where models and libraries are, and how many threads they may use.
#[derive(Args, Clone)]
pub struct EngineArguments {
    /// Folder of the models, the ONNX Runtime library and the private PostgreSQL [default: the user's data folder]
    #[arg(long, env = "LANTERN_DATA_PATH", value_name = "DIR")]
    data_path: Option<PathBuf>,

    /// Number of inference threads [default: the number of cores that this process may use]
    #[arg(long, env = "LANTERN_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// What runs the models: an execution provider of ONNX Runtime, and after a colon which of its devices, such as cuda:1
    /// or openvino:GPU. Devices with + between them, such as cuda:0+1, share the work. Several, separated by commas, are
    /// tried in their order, and the log names those that are passed over. May be repeated. There are cpu, cuda, tensorrt, tensorrt-rtx, openvino, coreml, directml, migraphx, rocm, qnn,
    /// cann, vitis, onednn, xnnpack and acl, as far as the ONNX Runtime library has them
    #[arg(
        long,
        env = "LANTERN_EXECUTION_PROVIDER",
        value_name = "NAME[:DEVICE[+DEVICE]]",
        value_delimiter = ',',
        default_value = "cpu"
    )]
    execution_provider: Vec<DeviceGroup>,

    /// Download no model, and use those that are on this machine. HF_HUB_OFFLINE=1 has the same effect
    #[arg(
        long,
        env = "LANTERN_OFFLINE",
        action = ArgAction::SetTrue,
        value_parser = FalseyValueParser::new()
    )]
    offline: bool,
}

impl EngineArguments {
    /// The data folder: the given one, else the user's.
    ///
    /// # Errors
    /// If the user has none.
    pub fn data_path(&self) -> anyhow::Result<PathBuf> {
        self.data_path.clone().map_or_else(data_path::default, Ok)
    }

    /// The models in the data folder, and those in the user's cache of the hub.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn catalog(&self) -> anyhow::Result<ModelCatalog> {
        self.catalog_with(&HubSettings::from_environment())
    }

    fn catalog_with(&self, hub: &HubSettings) -> anyhow::Result<ModelCatalog> {
        let models = self.data_path()?.join("models");
        Ok(ModelCatalog::new(models).with_cache(hub.cache()))
    }

    /// An engine for the models in the data folder, for a few texts of a command that a person waits for. It loads nothing yet.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn engine(&self) -> anyhow::Result<Engine> {
        self.engine_with(EngineOptions {
            yielding: Yielding::Off,
            cache_bytes: Some(0),
            ..EngineOptions::default()
        })
    }

    /// An engine that downloads nothing, for a command that only looks.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn engine_without_downloads(&self) -> anyhow::Result<Engine> {
        let offline = EngineArguments {
            offline: true,
            ..self.clone()
        };
        offline.engine()
    }

    /// Whether a model that is missing would be downloaded.
    pub fn downloads(&self) -> bool {
        !self.offline && !HubSettings::from_environment().is_offline()
    }

    /// An engine for the rows of tables. It loads nothing yet.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn engine_for_rows(&self, inference: &InferenceArguments) -> anyhow::Result<Engine> {
        self.engine_with(inference.options())
    }

    /// An engine for requests, of which each waits for its own vector. It loads nothing yet.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn engine_for_requests(&self, inference: &InferenceArguments) -> anyhow::Result<Engine> {
        self.engine_with(EngineOptions {
            divides_runs: true,
            ..inference.options()
        })
    }

    fn engine_with(&self, options: EngineOptions) -> anyhow::Result<Engine> {
        let data_path = self.data_path()?;
        let hub = HubSettings::from_environment();
        data_path::warn_of_other_writers(&data_path, hub.cache());
        let catalog = self.catalog_with(&hub)?;
        let options = EngineOptions {
            threads: self.threads,
            providers: self.execution_provider.clone(),
            data_path,
            hub: (!self.offline && !hub.is_offline()).then_some(hub),
            ..options
        };
        Ok(Engine::new(catalog, options))
    }
}

/// What the inference for many rows may use.
#[derive(Args, Clone)]
pub struct InferenceArguments {
    /// Leave the processors to others that use them, such as a PostgreSQL on the same machine
    #[arg(
        long = "yield",
        env = "LANTERN_YIELD",
        value_enum,
        default_value_t = Switch::On,
        value_name = "WHETHER"
    )]
    yields: Switch,

    /// The share of its cores, in percent, that inference uses even if others want them all
    #[arg(
        long,
        env = "LANTERN_YIELD_FLOOR",
        value_parser = clap::value_parser!(u8).range(1..=100),
        default_value = "10",
        value_name = "PERCENT"
    )]
    yield_floor: u8,

    /// Memory for the vectors of texts that may come again, such as 64MB; 0 for none
    #[arg(
        long,
        env = "LANTERN_CACHE_SIZE",
        value_parser = cache_size,
        default_value = "64MB",
        value_name = "SIZE"
    )]
    cache_size: u64,
}

/// The values of `--yield`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// Whatever others leave, but not less than --yield-floor
    On,
    /// Whatever the system gives it
    Off,
}

impl InferenceArguments {
    fn options(&self) -> EngineOptions {
        EngineOptions {
            yielding: self.yielding(),
            cache_bytes: Some(self.cache_size),
            ..EngineOptions::default()
        }
    }

    fn yielding(&self) -> Yielding {
        match self.yields {
            Switch::On => Yielding::DownTo(f64::from(self.yield_floor) / 100.0),
            Switch::Off => Yielding::Off,
        }
    }
}

fn cache_size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    byte_size::parse(text).ok_or_else(|| {
        "expected 0, or a whole number with a unit: B, kB, MB, GB or TB, as in 64MB".into()
    })
}
