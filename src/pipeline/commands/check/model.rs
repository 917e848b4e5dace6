//! Whether the model of a job and the library that runs it are on this machine, or its servers have it.

use super::Check;
use crate::embedding::{EmbeddingError, Location, Model, ModelEntry, ModelName, ModelOptions};
use crate::pipeline::setup::definition::{Runtime, TargetNames};
use crate::pipeline::setup::model;
use crate::pipeline::setup::preflight::points::{Outcome, Points};

/// Whether the model is there.
pub(super) const MODEL: &str = "model";
/// Whether the library is there.
pub(super) const LIBRARY: &str = "ONNX Runtime";

const LOADED: &str = "the library loads";

impl Check<'_> {
    /// Adds what it finds; returns the dimensions of the model, if they are known, and the model, if it is there. Downloads
    /// nothing.
    pub(super) async fn look_at_model(
        &self,
        points: &mut Points,
        names: &TargetNames,
    ) -> (Option<usize>, Option<Model>) {
        let Runtime::Ort(options) = &names.runtime else {
            return self.ask_servers(points, names).await;
        };
        let library = self.engine.load_runtime().await;
        let Some(name) = points.note_failure(MODEL, names.model.parse::<ModelName>()) else {
            points.note(LIBRARY, library, |()| LOADED.into());
            return (None, None);
        };
        let entry = self.engine.catalog().entry(name.clone());
        let dimensions = entry.dimensions;
        let model = match (&library, &entry) {
            // The model cannot be loaded without the library, whose own point says so.
            (
                Err(_),
                ModelEntry {
                    location: Location::Local(_),
                    problem: None,
                    ..
                },
            ) => {
                points.add(MODEL, Outcome::Passed(describe(&entry)));
                None
            }
            _ => self.load(points, name, options, &entry).await,
        };
        points.note(LIBRARY, library, |()| LOADED.into());
        (dimensions, model)
    }

    /// Asks the servers of the model for the vector of a word.
    async fn ask_servers(
        &self,
        points: &mut Points,
        names: &TargetNames,
    ) -> (Option<usize>, Option<Model>) {
        let loaded = model::load(self.engine, names, self.access).await;
        let dimensions = loaded.as_ref().ok().map(Model::dimensions);
        let model = points.note(MODEL, loaded, |model| {
            let (name, dimensions) = (model.name(), model.dimensions());
            format!("{name}, {dimensions} dimensions, is at its server")
        });
        (dimensions, model)
    }

    async fn load(
        &self,
        points: &mut Points,
        name: ModelName,
        options: &ModelOptions,
        entry: &ModelEntry,
    ) -> Option<Model> {
        let loaded = self.engine.model_with(&name, options).await;
        let is_missing = match &loaded {
            Err(EmbeddingError::ModelNotFound { .. }) => name.path().is_none(),
            // A cache may lack files of the model, which the daemon adds.
            Err(EmbeddingError::ModelUnusable { .. }) => entry.commit.is_some(),
            _ => false,
        };
        if is_missing && self.downloads {
            let advice = self.would_be_downloaded(&name, entry);
            points.add(MODEL, Outcome::Advice(advice));
            None
        } else {
            points.note(MODEL, loaded, |_| describe(entry))
        }
    }

    fn would_be_downloaded(&self, name: &ModelName, entry: &ModelEntry) -> String {
        let is_known = entry.dimensions.is_some();
        let place = match is_known || entry.commit.is_some() {
            true => "the daemon downloads it when the job starts",
            false => {
                "it is none of lantern-cli show-models, so the daemon looks for it on the hub when the job starts"
            }
        };
        let meant = match self.engine.catalog().meant_by(name) {
            Some(meant) if !is_known => format!("; did you mean {meant}?"),
            _ => format!("; lantern-cli pull {name} does that now"),
        };
        format!("{name} is not on this machine: {place}{meant}")
    }
}

fn describe(entry: &ModelEntry) -> String {
    let dimensions = entry.dimensions.map_or_else(String::new, |dimensions| {
        format!(", {dimensions} dimensions")
    });
    format!("{}{dimensions}, is on this machine", entry.name)
}
