//! A model that jobs use, wherever its vectors are computed.

use std::fmt;
use std::sync::Arc;

use super::local::device::DeviceState;
use super::local::loaded::LoadedModel;
use super::local::provider::group::DeviceGroup;
use super::pooling::Pooling;
use super::remote::{RemoteModel, ServerState};

/// A model; clones share it. One of this process is unloaded when the last clone and the last queue that uses it are
/// dropped.
#[derive(Clone)]
pub struct Model {
    computed: Computed,
}

/// Where the vectors of a model are computed.
#[derive(Clone)]
pub(crate) enum Computed {
    /// In this process.
    Here(Arc<LoadedModel>),
    /// By a server.
    Elsewhere(Arc<RemoteModel>),
}

impl Model {
    /// The canonical name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.computed {
            Computed::Here(model) => model.name().as_str(),
            Computed::Elsewhere(model) => model.options().model(),
        }
    }

    /// What runs the model; `None` for a model of a server.
    #[must_use]
    pub fn provider(&self) -> Option<&DeviceGroup> {
        self.here().map(|model| &model.base.group)
    }

    /// The devices that run the model; none where a processor does, or a server. They count for all jobs with the model. It
    /// takes a moment.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceState> {
        let on_devices = self
            .here()
            .filter(|model| !model.base.group.uses_processor());
        on_devices.map_or_else(Vec::new, |model| {
            model.base.devices.iter().map(DeviceState::of).collect()
        })
    }

    /// The length of every vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        match &self.computed {
            Computed::Here(model) => model.dimensions(),
            Computed::Elsewhere(model) => model.dimensions(),
        }
    }

    /// The longest input in tokens, special tokens included. Longer texts are truncated, unless the options say
    /// otherwise. `None` for a model of a server, which alone knows it.
    #[must_use]
    pub fn max_tokens(&self) -> Option<usize> {
        self.here().map(|model| model.settings.max_tokens)
    }

    /// How many tokens of a text count: [`Model::max_tokens`], or more where the options ask for the mean of long texts.
    #[must_use]
    pub fn max_text_tokens(&self) -> Option<usize> {
        self.here().map(|model| model.max_text_tokens())
    }

    /// What a text can be too long for, such as "the 256 tokens that the model X reads".
    #[must_use]
    pub fn window(&self) -> String {
        let name = self.name();
        match self.max_text_tokens() {
            Some(tokens) => format!("the {tokens} tokens that the model {name} reads"),
            None => format!("what the model {name} reads"),
        }
    }

    /// How token states become one vector; `None` for a model of a server.
    #[must_use]
    pub fn pooling(&self) -> Option<&Pooling> {
        self.here().map(|model| &model.settings.pooling)
    }

    /// Sixteen hexadecimal digits that change when the model's files change in a way that changes vectors, or an option
    /// does that decides those of documents. The same on every machine with the same files, whatever their dates and
    /// folder. Of a model of a server only its name and the options are known.
    #[must_use]
    pub fn identity(&self) -> &str {
        match &self.computed {
            Computed::Here(model) => &model.settings.identity,
            Computed::Elsewhere(model) => model.identity(),
        }
    }

    /// Why no text is embedded now, where the model's servers or devices are the reason; `None` while one of them takes texts.
    /// It takes a moment.
    #[must_use]
    pub fn held_up(&self) -> Option<String> {
        match &self.computed {
            Computed::Here(_) => lost(&self.devices()),
            Computed::Elsewhere(model) => model.service().held_up(),
        }
    }

    /// The servers of the model, none where it is in this process. They count for all jobs that use them with one key. It
    /// takes a moment.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerState> {
        match &self.computed {
            Computed::Here(_) => Vec::new(),
            Computed::Elsewhere(model) => model.service().servers(),
        }
    }

    /// Whether both are handles to the same loaded graph, maybe under different options.
    #[must_use]
    pub fn shares_weights_with(&self, other: &Self) -> bool {
        match (self.here(), other.here()) {
            (Some(own), Some(others)) => Arc::ptr_eq(&own.base, &others.base),
            _ => false,
        }
    }

    pub(crate) fn from_loaded(model: Arc<LoadedModel>) -> Self {
        Self {
            computed: Computed::Here(model),
        }
    }

    pub(crate) fn from_remote(model: Arc<RemoteModel>) -> Self {
        Self {
            computed: Computed::Elsewhere(model),
        }
    }

    pub(crate) fn computed(&self) -> &Computed {
        &self.computed
    }

    pub(super) fn here(&self) -> Option<&Arc<LoadedModel>> {
        match &self.computed {
            Computed::Here(model) => Some(model),
            Computed::Elsewhere(_) => None,
        }
    }
}

/// Why the devices compute nothing, if none of them does.
fn lost(devices: &[DeviceState]) -> Option<String> {
    let lost = |device: &DeviceState| {
        let outage = device.outage.as_ref()?;
        Some(format!("{} is lost: {}", device.device, outage.error))
    };
    let all: Option<Vec<String>> = devices.iter().map(lost).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.join("; "))
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.name())
            .field("dimensions", &self.dimensions())
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}
