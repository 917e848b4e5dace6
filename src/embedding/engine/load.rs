//! Loads a model on the first execution provider that can run it.

use std::path::Path;
use std::thread;
use std::time::Instant;

use ort::environment::Environment;

use super::inner::EngineInner;
use super::options::DEFAULT_BATCH_TOKENS;
use crate::embedding::error::EmbeddingError;
use crate::embedding::local::base::ModelBase;
use crate::embedding::local::device::Device;
use crate::embedding::local::devices::Devices;
use crate::embedding::local::opening::Opening;
use crate::embedding::local::pooling_nodes::PoolingNodes;
use crate::embedding::local::provider::calibration;
use crate::embedding::local::provider::check::{check, in_short};
use crate::embedding::local::provider::choice::ExecutionProvider;
use crate::embedding::local::provider::group::DeviceGroup;
use crate::embedding::local::provider::placement;
use crate::embedding::local::provider::plan::{SessionPlan, batch_tokens};
use crate::embedding::local::provider::self_test;
use crate::embedding::local::runtime;
use crate::embedding::local::session::SharedSession;
use crate::embedding::name::ModelName;

impl EngineInner {
    /// The library, loaded now unless it is loaded already. Blocks.
    pub(super) fn runtime(&self) -> Result<Environment, EmbeddingError> {
        let explicit = self.options.runtime_library.as_deref();
        runtime::environment(explicit, &self.options.data_path)
    }

    /// Finds the first execution provider that can be used, from this place on. Blocks.
    pub(super) fn find_provider(
        &self,
        environment: &Environment,
        first: usize,
    ) -> Result<usize, EmbeddingError> {
        let library = runtime::library().unwrap_or_default();
        let check = |group: &DeviceGroup| {
            group.devices().iter().try_for_each(|device| {
                let found = check(device, environment, &library);
                found.map_err(|error| in_group(group, device, error))
            })
        };
        let place = self.providers.usable_from(first, check)?;
        if self.options.batch_tokens.is_none() {
            let tokens = batch_tokens(self.providers.at(place).first());
            let tokens = tokens.unwrap_or(DEFAULT_BATCH_TOKENS.get());
            self.scheduler.set_batch_tokens(tokens);
        }
        Ok(place)
    }

    /// Finds and loads what all uses of a model share. Blocks.
    pub(super) fn load(&self, name: &ModelName) -> Result<ModelBase, EmbeddingError> {
        let started = Instant::now();
        let folder = self.fetcher.catalog().locate(name)?;
        let environment = self.runtime()?;
        let mut place = self.find_provider(&environment, 0)?;
        let base = loop {
            let group = self.providers.at(place);
            match self.load_on(group, name, &folder, &environment) {
                Err(error) if error.concerns_provider() && self.providers.has_next(place) => {
                    self.providers.warn_of(place, &error);
                    place = self.find_provider(&environment, place + 1)?;
                }
                loaded => break loaded?,
            }
        };
        self.providers.note_use(place);
        let batch_tokens = base.devices.batch_sizes();
        tracing::info!(
            model = %base.name,
            folder = %folder.display(),
            provider = %base.group,
            batch_tokens = batch_tokens.map(tracing::field::display),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "model loaded"
        );
        Ok(base)
    }

    fn load_on(
        &self,
        group: &DeviceGroup,
        name: &ModelName,
        folder: &Path,
        environment: &Environment,
    ) -> Result<ModelBase, EmbeddingError> {
        // The CPU comes first in any case: it tells whether the model's files are at fault or the provider is, and the
        // vectors of the provider are compared with its.
        let cpu = self.plan(&ExecutionProvider::CPU);
        let mut base = ModelBase::load(name.clone(), folder, environment, cpu)?;
        if group.is_cpu() {
            return Ok(base);
        }
        let on = |device| {
            let loaded = self.session_on(device, &base, environment);
            let loaded = loaded.map_err(|error| in_group(group, device, error));
            loaded.map(Device::new)
        };
        let devices = group.devices().iter().map(on).collect::<Result<_, _>>()?;
        base.devices = Devices::new(devices);
        base.group = group.clone();
        say_how_it_is_divided(&base);
        if !group.uses_processor() && self.options.batch_tokens.is_none() {
            calibrate(&base);
        }
        Ok(base)
    }

    /// The sessions of an engine on this device.
    fn plan(&self, device: &ExecutionProvider) -> SessionPlan {
        SessionPlan::new(device, self.threads(), self.options.divides_runs)
    }

    /// Loads a model on this device, and compares its vectors with those of the CPU.
    fn session_on(
        &self,
        provider: &ExecutionProvider,
        base: &ModelBase,
        environment: &Environment,
    ) -> Result<SharedSession, EmbeddingError> {
        let name = &base.name;
        let refuses = |error: EmbeddingError| EmbeddingError::ProviderRefuses {
            provider: provider.clone(),
            model: name.clone(),
            reason: in_short(&error.to_string()),
        };
        let load = |pooling: Option<PoolingNodes>| {
            let opening = Opening {
                environment: environment.clone(),
                provider: provider.clone(),
                plan: self.plan(provider),
                path: base.files.onnx.clone(),
                pooling,
            };
            let session = SharedSession::load(opening, base.files.past)?;
            let worst = self_test::compare(base, &session)?;
            Ok((session, worst))
        };
        let modes = base.files.pooling.modes().len().max(1);
        let nodes = match provider.uses_processor() {
            true => None,
            false => base.session().pooling_nodes(modes),
        };
        let pooled = nodes.and_then(|nodes| match load(Some(nodes)) {
            Ok((session, worst)) if worst.is_good() => Some((session, worst)),
            loaded => {
                let error = loaded.err().map(|error: EmbeddingError| error.to_string());
                tracing::debug!(model = %name, %provider, ?error, "the device does not pool");
                None
            }
        });
        let (session, worst) = match pooled {
            Some(loaded) => loaded,
            None => load(None).map_err(refuses)?,
        };
        if !worst.is_good() {
            return Err(EmbeddingError::ProviderDiffers {
                provider: provider.clone(),
                model: name.clone(),
                cosine: worst.cosine,
                text: worst.of,
            });
        }
        tracing::info!(
            model = %name,
            %provider,
            cosine = worst.cosine,
            "the vectors of the execution provider are those of the CPU"
        );
        Ok(session)
    }
}

/// Warns where the processor computes a part of the graph that costs much: it is as slow as that, and nothing else shows it.
/// What holds for one device holds for the others.
fn say_how_it_is_divided(base: &ModelBase) {
    let (session, model) = (base.session(), &base.name);
    let provider = session.provider();
    if provider.uses_processor() || !placement::is_cheap(provider.kind) {
        return;
    }
    let Some(placement) = session.opening().placement() else {
        return;
    };
    let (nodes, on_processor) = (placement.nodes, placement.on_processor);
    match placement.is_divided() {
        true => tracing::warn!(
            %model,
            %provider,
            nodes,
            on_processor,
            "the execution provider leaves a part of the graph to the processor, which is slow: {placement}"
        ),
        false => tracing::info!(
            %model,
            %provider,
            nodes,
            on_processor,
            "the execution provider computes all of the graph that costs much"
        ),
    }
}

/// Measures how large the batches of each device should be, of all at the same time, as they will work later.
fn calibrate(base: &ModelBase) {
    thread::scope(|scope| {
        for device in base.devices.iter() {
            scope.spawn(|| {
                let tokens = calibration::batch_tokens(base, &device.session);
                tokens.map(|tokens| device.lower_batch_tokens(tokens))
            });
        }
    });
}

/// The error of a device, and of which group it is.
fn in_group(
    group: &DeviceGroup,
    device: &ExecutionProvider,
    error: EmbeddingError,
) -> EmbeddingError {
    match group.has_several() {
        true => EmbeddingError::DeviceOfGroup {
            group: group.clone(),
            device: device.clone(),
            error: Box::new(error),
        },
        false => error,
    }
}
