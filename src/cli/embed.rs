//! `lantern-cli embed`: prints the vectors of texts.

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::engine_arguments::EngineArguments;
use crate::embedding::{ModelName, TextRole};

/// Print the vector of each text, computed as a job with this model computes it
///
/// Prints one vector on each line, in the order of the texts. Up to rounding, the vectors are those that the daemon
/// writes for the same texts, so they can be compared with a column. To search by hand, embed the question with --query
/// and order by the distance to its vector.
#[derive(Args)]
pub struct Embed {
    /// The model: one of those that `lantern-cli show-models` lists
    #[arg(long, default_value = "sentence-transformers/all-MiniLM-L6-v2")]
    model: ModelName,

    /// How each vector is printed
    #[arg(long, value_enum, default_value_t = VectorFormat::Vector)]
    format: VectorFormat,

    /// Embed the texts as search queries rather than as documents. Matters only for models that expect different
    /// prompts before the two
    #[arg(long)]
    query: bool,

    #[command(flatten)]
    engine: EngineArguments,

    /// The texts. An empty text has no vector and is an error
    #[arg(required = true)]
    texts: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VectorFormat {
    /// A literal of pgvector: [0.1,0.2]
    Vector,
    /// A JSON array
    Json,
}

/// Embeds the texts and prints their vectors.
pub async fn run(arguments: Embed) -> anyhow::Result<()> {
    if arguments.texts.iter().any(String::is_empty) {
        bail!("an empty text has no vector (a job stores NULL for it); remove the empty argument");
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
            VectorFormat::Vector => println!("{}", vector_literal(&vector)),
            VectorFormat::Json => println!("{}", serde_json::to_string(&vector)?),
        }
    }
    Ok(())
}

/// `[0.1,0.2]`: the input format of pgvector.
fn vector_literal(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}
