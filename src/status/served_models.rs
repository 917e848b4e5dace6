//! The models that programs may use over HTTP: those of the running jobs, or those that `lantern-cli serve` has loaded.
//!
//! A job offers its model under the id `job:ID` for as long as it runs. The name of the model stands for the job with the
//! lowest id among those that use it: jobs may use one model under different options, so programs had better name the job.
//! A job that has taken over the column of another one offers its model under the id of that one, too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::embedding::{Model, ModelName};

/// What stands before the id of a job.
const JOB: &str = "job:";

/// The models that are offered now. Clones share them.
#[derive(Clone, Default)]
pub struct ServedModels(Arc<Mutex<BTreeMap<Place, Offered>>>);

/// What is offered at a place.
struct Offered {
    /// That of the offer: a later one at the same place does not end with an earlier one.
    number: u64,
    /// The place is that of a job which was replaced.
    is_of_replaced: bool,
    served: ServedModel,
}

/// A model that may be used.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// The model under the options of its job.
    pub model: Model,
    /// Since when it is offered.
    pub since: SystemTime,
}

/// Offers a model for as long as it lives.
pub struct Offer {
    models: ServedModels,
    place: Place,
    number: u64,
}

/// Orders offers: jobs by their ids, numbers by their value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    number: u128,
    id: Option<String>,
}

impl ServedModels {
    /// Offers the model of a job.
    pub fn offer_of_job(&self, job: &str, model: Model) -> Offer {
        self.offer(Place::of_job(job), model, false)
    }

    /// Offers the model of a job under the id of another one, which it has replaced.
    pub fn offer_of_replaced_job(&self, job: &str, model: Model) -> Offer {
        self.offer(Place::of_job(job), model, true)
    }

    /// Offers a model that belongs to no job, behind those that are offered already.
    pub fn offer_by_name(&self, model: Model) -> Offer {
        let number = self.lock().len() as u128;
        self.offer(Place { number, id: None }, model, false)
    }

    fn offer(&self, place: Place, model: Model, is_of_replaced: bool) -> Offer {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let since = SystemTime::now();
        let offered = Offered {
            number,
            is_of_replaced,
            served: ServedModel { model, since },
        };
        let earlier = self.lock().insert(place.clone(), offered);
        drop(earlier);
        let models = self.clone();
        Offer {
            models,
            place,
            number,
        }
    }

    /// The model with this id: `job:ID`, or a model's name in any form that a job may have.
    pub fn find(&self, id: &str) -> Option<ServedModel> {
        let models = self.lock();
        if let Some(job) = id.strip_prefix(JOB) {
            let mut all = models.iter();
            let found = all.find(|(place, _)| place.id.as_deref() == Some(job));
            return found.map(|(_, offered)| offered.served.clone());
        }
        let canonical = id.parse::<ModelName>().map(|name| name.to_string());
        let is_it = |name: &str| name == id || canonical.as_deref() == Ok(name);
        let mut all = by_name(&models);
        all.find(|served| is_it(served.model.name())).cloned()
    }

    /// The model that is meant where none is named: the only one.
    pub fn only(&self) -> Option<(String, ServedModel)> {
        let models = self.lock();
        let mut all = by_name(&models);
        let served = all.next()?;
        let is_only = all.next().is_none();
        is_only.then(|| (served.model.name().to_string(), served.clone()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Every id under which a model can be used, each with its model.
    pub fn all(&self) -> Vec<(String, ServedModel)> {
        let models = self.lock();
        let mut all: Vec<(String, ServedModel)> = Vec::new();
        for served in by_name(&models) {
            let name = served.model.name().to_string();
            if all.iter().all(|(known, _)| *known != name) {
                all.push((name, served.clone()));
            }
        }
        for (place, offered) in models.iter() {
            let id = place.id.as_ref().map(|id| format!("{JOB}{id}"));
            all.extend(id.map(|id| (id, offered.served.clone())));
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Offered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that the name of a model can stand for.
fn by_name(models: &BTreeMap<Place, Offered>) -> impl Iterator<Item = &ServedModel> {
    let own = models.values().filter(|offered| !offered.is_of_replaced);
    own.map(|offered| &offered.served)
}

impl Place {
    fn of_job(job: &str) -> Place {
        Place {
            number: job.parse().unwrap_or(u128::MAX),
            id: Some(job.to_owned()),
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        let removed = {
            let mut models = self.models.lock();
            let own = models.get(&self.place);
            match own.is_some_and(|offered| offered.number == self.number) {
                true => models.remove(&self.place),
                false => None,
            }
        };
        // The last handle of a model frees its memory: not under the lock.
        drop(removed);
    }
}
