//! The providers that may be used, in the order of preference, and which of them can be.

use std::sync::Mutex;

use super::group::DeviceGroup;
use crate::embedding::error::EmbeddingError;
use crate::embedding::schedule::scheduler::lock;

/// The providers that were asked for.
pub(crate) struct ProviderOrder {
    named: Vec<DeviceGroup>,
    state: Mutex<State>,
}

struct State {
    /// What the check of each has found, once it was made.
    checked: Vec<Option<Result<(), EmbeddingError>>>,
    /// The place of the one that the last model was loaded on.
    active: Option<usize>,
}

impl ProviderOrder {
    /// These, or the CPU alone where none is named.
    pub(crate) fn new(named: Vec<DeviceGroup>) -> Self {
        let named = match named.is_empty() {
            true => vec![DeviceGroup::cpu()],
            false => named,
        };
        let state = Mutex::new(State {
            checked: vec![None; named.len()],
            active: None,
        });
        Self { named, state }
    }

    /// Whether no other than the CPU's may be used.
    pub(crate) fn is_cpu_alone(&self) -> bool {
        self.named.iter().all(DeviceGroup::is_cpu)
    }

    /// The provider at this place.
    pub(crate) fn at(&self, place: usize) -> &DeviceGroup {
        &self.named[place]
    }

    /// The first usable one from this place on. Each is checked once, and the log names those that are passed over.
    ///
    /// # Errors
    ///
    /// That of the last one, if none is usable.
    pub(crate) fn usable_from(
        &self,
        first: usize,
        check: impl Fn(&DeviceGroup) -> Result<(), EmbeddingError>,
    ) -> Result<usize, EmbeddingError> {
        let mut state = lock(&self.state);
        let mut place = first;
        loop {
            let is_known = state.checked[place].is_some();
            let found = state.checked[place].get_or_insert_with(|| check(&self.named[place]));
            match found {
                Ok(()) => {
                    state.active.get_or_insert(place);
                    return Ok(place);
                }
                Err(error) if self.has_next(place) => {
                    if !is_known {
                        self.warn_of(place, error);
                    }
                    place += 1;
                }
                Err(error) => return Err(error.clone()),
            }
        }
    }

    /// Whether there is another one behind this place.
    pub(crate) fn has_next(&self, place: usize) -> bool {
        place + 1 < self.named.len()
    }

    /// Says that the next provider is used in place of this one, and why.
    pub(crate) fn warn_of(&self, place: usize, error: &EmbeddingError) {
        let next = &self.named[place + 1];
        tracing::warn!(
            provider = %self.named[place],
            %next,
            "an execution provider is passed over, and the next one is tried: {error}"
        );
    }

    /// A model was loaded on the provider at this place.
    pub(crate) fn note_use(&self, place: usize) {
        lock(&self.state).active = Some(place);
    }

    /// The provider in use: that of the last model, else the first usable one, else the first one.
    pub(crate) fn active(&self) -> &DeviceGroup {
        let place = lock(&self.state).active.unwrap_or(0);
        &self.named[place]
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn order(names: &[&str]) -> ProviderOrder {
        ProviderOrder::new(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    fn missing(provider: &DeviceGroup) -> Result<(), EmbeddingError> {
        Err(EmbeddingError::ProviderUnusable {
            provider: provider.first().clone(),
            reason: "it is not there".into(),
            remedy: "buy one",
        })
    }

    #[test]
    fn the_first_usable_provider_is_found_and_each_is_checked_once() {
        let order = order(&["tensorrt", "cuda:1", "cpu"]);
        let checked = RefCell::new(Vec::new());
        let check = |provider: &DeviceGroup| {
            checked.borrow_mut().push(provider.to_string());
            if provider.to_string() == "cuda:1" {
                Ok(())
            } else {
                missing(provider)
            }
        };
        for _ in 0..2 {
            assert_eq!(order.usable_from(0, check).unwrap(), 1);
        }
        assert_eq!(*checked.borrow(), ["tensorrt", "cuda:1"]);
        assert_eq!(order.active().to_string(), "cuda:1");
    }

    #[test]
    fn no_other_provider_is_used_than_those_that_are_named() {
        let order = order(&["tensorrt", "cuda"]);
        let error = order.usable_from(0, missing).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "the execution provider cuda cannot be used: it is not there; buy one"
            ),
            "{error}"
        );
    }

    #[test]
    fn without_a_name_it_is_the_cpu() {
        let order = order(&[]);
        assert!(order.is_cpu_alone());
        assert_eq!(order.active(), &DeviceGroup::cpu());
    }
}
