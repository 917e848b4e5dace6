//! The arguments that say what the new model is.

use clap::Args;

use crate::jobs::{Definition, JobRow};

/// The new model, and how it is used.
#[derive(Args)]
pub struct NewModelArguments {
    /// The new model
    #[arg(long, value_name = "MODEL")]
    pub to: Option<String>,

    /// Where it is: ort (in the daemon), openai, cohere, voyage or ollama [default: where the old one is]
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,

    /// How it is used, as JSON [default for models elsewhere: as the old one]
    #[arg(long, value_name = "JSON")]
    runtime_params: Option<String>,

    /// The type of the new column: vector, halfvec, REAL[] or DOUBLE PRECISION[] [default: that of the old one]
    #[arg(long, value_name = "TYPE")]
    column_type: Option<String>,

    /// Build an index of the new vectors: hnsw [default: as create_index of the job says]
    #[arg(long, value_name = "METHOD")]
    create_index: Option<String>,

    /// How that index is built, as JSON, such as {"m": 16}
    #[arg(long, value_name = "JSON")]
    index_params: Option<String>,
}

impl NewModelArguments {
    /// An option that says something only of a new model.
    pub fn first_option(&self) -> Option<&'static str> {
        let given = [
            ("--runtime", &self.runtime),
            ("--runtime-params", &self.runtime_params),
            ("--column-type", &self.column_type),
            ("--create-index", &self.create_index),
            ("--index-params", &self.index_params),
        ];
        let mut given = given.into_iter();
        given
            .find(|(_, value)| value.is_some())
            .map(|(option, _)| option)
    }

    /// The definition of the new job.
    pub fn definition(&self, old: &JobRow) -> Definition {
        let was = &old.definition;
        let stays = self.runtime.is_none() || self.runtime.as_deref() == was.runtime.as_deref();
        let runtime = self.runtime.clone().or_else(|| was.runtime.clone());
        let is_elsewhere = runtime.as_deref().is_some_and(|runtime| runtime != "ort");
        // Options of a model in the daemon are of that model. Those of a runtime elsewhere say where its servers are.
        let params = self.runtime_params.clone();
        let inherited = (stays && is_elsewhere).then(|| was.runtime_params.clone());
        // Dimensions that an old column_type names are those of the old model.
        let kind = was.column_type.as_deref();
        let kind = kind.and_then(|kind| kind.split('(').next().map(str::to_owned));
        Definition {
            embedding_model: self.to.clone(),
            runtime,
            runtime_params: params.or(inherited.flatten()),
            column_type: self.column_type.clone().or(kind),
            create_index: self.create_index.clone().or(was.create_index.clone()),
            index_params: self.index_params.clone().or(was.index_params.clone()),
            replaces: Some(old.id.clone()),
            backfill: true,
            trust_existing: false,
            accept_failures: false,
            ..was.clone()
        }
    }
}
