//! The devices that run a model together, and which of them the next run is for.
//!
//! ```text
//!              ┌─▶ cuda:0   2 runs under way, 1 batch ready     each with its own sessions, size of batches and outages
//!  scheduler ──┤
//!              └─▶ cuda:1   1 run under way                     the next run is for this one
//! ```
//!
//! A run is for the device with the fewest runs that have not ended, and among several for the first one. Runs are
//! counted rather than their tokens: each batch is cut to the size that is best on its device, so a full one is about as
//! much work for one device as for another, whereas the tokens of a batch for a large device are many batches for a small
//! one. A slow device gets fewer runs because it ends fewer.

use super::device::Device;

/// Batches that are cut for a device beyond those that it runs: so it never waits for one.
const READY_BATCHES: usize = 1;

/// The devices of a model, of which there is at least one.
pub(crate) struct Devices {
    all: Vec<Device>,
}

/// What may be done on the devices of a model now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vacancy {
    /// The number of the device that the next run is for.
    pub device: usize,
    /// Further runs that could begin at once, on any of the devices.
    pub others: usize,
}

impl Devices {
    /// These, of which there must be at least one.
    pub(crate) fn new(all: Vec<Device>) -> Self {
        debug_assert!(!all.is_empty());
        Self { all }
    }

    pub(crate) fn first(&self) -> &Device {
        &self.all[0]
    }

    pub(crate) fn at(&self, number: usize) -> &Device {
        &self.all[number]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.all.iter()
    }

    /// The most padded tokens of a batch on each, such as "4096" or "4096+2048", where the engine's setting does not count.
    pub(crate) fn batch_sizes(&self) -> Option<String> {
        let sizes = self.all.iter().map(Device::batch_tokens);
        sizes.clone().any(|tokens| tokens.is_some()).then(|| {
            let sizes = sizes.map(|tokens| tokens.map_or_else(|| "?".into(), |n| n.to_string()));
            sizes.collect::<Vec<String>>().join("+")
        })
    }

    /// Batches that may be cut and not finished at the same time.
    pub(crate) fn most_runs(&self) -> usize {
        self.all.iter().map(most_runs).sum()
    }

    /// Which device may take one more run; `None` while none may.
    pub(crate) fn vacancy(&self) -> Option<Vacancy> {
        let device = self.least(|device| device.assigned() < most_runs(device))?;
        let usable = self.all.iter().filter(|device| !device.is_lost());
        let at_once = usable.map(|device| device.runs().saturating_sub(device.assigned()));
        Some(Vacancy {
            device,
            others: at_once.sum::<usize>().saturating_sub(1),
        })
    }

    /// The device that computes and has the fewest runs, however many that are.
    pub(crate) fn least_loaded(&self) -> Option<usize> {
        self.least(|_| true)
    }

    fn least(&self, may: impl Fn(&Device) -> bool) -> Option<usize> {
        fewest(self.all.iter().map(|device| {
            let is_usable = may(device) && !device.is_lost();
            is_usable.then(|| device.assigned())
        }))
    }
}

fn most_runs(device: &Device) -> usize {
    device.runs() + READY_BATCHES
}

/// The place of the smallest number, and the first of several such places. Where there is none, no run may be given.
fn fewest(runs: impl Iterator<Item = Option<usize>>) -> Option<usize> {
    let usable = runs
        .enumerate()
        .filter_map(|(place, runs)| Some((runs?, place)));
    usable.min().map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_for_the_device_with_the_fewest_and_then_for_the_first() {
        let next = |runs: &[Option<usize>]| fewest(runs.iter().copied());
        assert_eq!(next(&[Some(2), Some(1), Some(2)]), Some(1));
        assert_eq!(next(&[Some(1), Some(1)]), Some(0));
        assert_eq!(next(&[None, Some(3), Some(3)]), Some(1));
        assert_eq!(next(&[None, None]), None);
    }
}
