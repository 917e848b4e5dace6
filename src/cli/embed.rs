//! `lantern-cli embed`

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::EngineArguments;
use crate::embedding::{ModelName, TextRole};

/// Print the vectors of texts, computed as a job with this model would
#[derive(Args)]
pub struct Embed {
    /// The model, one of `lantern-cli show-models`
    #[arg(long, default_value = "sentence-transformers/all-MiniLM-L6-v2")]
    model: ModelName,

    /// How vectors are printed, one a line
    #[arg(long, value_enum, default_value_t = Format::Vector)]
    format: Format,

    /// Embed as search queries, for models that treat queries and documents differently
    #[arg(long)]
    query: bool,

    #[command(flatten)]
    engine: EngineArguments,

    /// The texts
    #[arg(required = true)]
    texts: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A literal for pgvector: [0.1,0.2]
    Vector,
    /// A JSON array
    Json,
}

pub async fn run(arguments: Embed) -> anyhow::Result<()> {
    if arguments.texts.iter().any(String::is_empty) {
        bail!("an empty text has no embedding (a job stores NULL for it)");
    }
    let engine = arguments.engine.engine();
    let model = engine.model(&arguments.model).await?;
    let role = if arguments.query {
        TextRole::Query
    } else {
        TextRole::Document
    };
    for vector in engine.embed(&model, role, arguments.texts).await? {
        match arguments.format {
            Format::Vector => println!("{}", vector_literal(&vector)),
            Format::Json => println!("{}", serde_json::to_string(&vector)?),
        }
    }
    Ok(())
}

/// `[0.1,0.2]`, as pgvector reads it.
pub fn vector_literal(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}
