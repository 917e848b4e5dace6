//! A run that was given to a device.

use std::sync::Arc;

use super::base::ModelBase;
use super::device::Device;

/// A run that was given to a device, until it is dropped.
pub(crate) struct Assignment {
    base: Arc<ModelBase>,
    /// That of the device.
    number: usize,
}

impl Assignment {
    /// Gives a run to the device with this number.
    pub(crate) fn new(base: Arc<ModelBase>, number: usize) -> Self {
        base.devices.at(number).begin_run();
        Self { base, number }
    }

    pub(crate) fn base(&self) -> &Arc<ModelBase> {
        &self.base
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn device(&self) -> &Device {
        self.base.devices.at(self.number)
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.device().end_run();
    }
}
