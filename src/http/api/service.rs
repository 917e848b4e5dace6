//! What all requests of the API share.

use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::error::{ApiError, Problem};
use crate::embedding::Engine;
use crate::status::ServedModels;
use crate::status::served_models::ServedModel;

/// What requests need to get vectors.
pub struct Api {
    /// Computes them.
    engine: Engine,
    /// With which models.
    models: ServedModels,
    /// No further request is taken.
    stop: CancellationToken,
    pub(super) admission: Admission,
}

impl Api {
    /// Answers with these models until `stop`.
    pub fn new(engine: Engine, models: ServedModels, stop: CancellationToken) -> Self {
        Self {
            engine,
            models,
            stop,
            admission: Admission::new(),
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn models(&self) -> &ServedModels {
        &self.models
    }

    /// Refuses requests that come too late.
    ///
    /// # Errors
    /// If the daemon stops.
    pub(super) fn check_open(&self) -> Result<(), ApiError> {
        match self.stop.is_cancelled() {
            true => Err(ApiError::new(Problem::Unavailable, "the server stops")),
            false => Ok(()),
        }
    }

    /// The model with this id, or the only one, with the id that the answer has.
    ///
    /// # Errors
    /// If there is none, or none is named and there are several.
    pub(super) fn model(&self, id: Option<&str>) -> Result<(String, ServedModel), ApiError> {
        let found = match id {
            Some(id) => self.models.find(id).map(|served| (id.to_owned(), served)),
            None => self.models.only(),
        };
        found.ok_or_else(|| self.no_model(id))
    }

    fn no_model(&self, id: Option<&str>) -> ApiError {
        let ids: Vec<String> = self.models.all().into_iter().map(|(id, _)| id).collect();
        let ids = match ids.len() {
            0 => return ApiError::new(Problem::Unavailable, "no model is loaded yet"),
            1..=20 => ids.join(", "),
            more => format!(
                "{}, … ({more} in all: see /v1/models)",
                ids[..20].join(", ")
            ),
        };
        match id {
            None => ApiError::invalid("model", format!("model is missing; there are {ids}")),
            Some(id) => {
                let message = format!("the model {id:?} does not exist here; there are {ids}");
                ApiError::new(Problem::NoModel, message).of("model")
            }
        }
    }
}
