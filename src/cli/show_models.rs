//! `lantern-cli show-models`: lists the embedding models.

use clap::Args;

use super::engine_arguments::EngineArguments;
use super::output;
use super::table;
use crate::embedding::{Location, ModelEntry};

const HEADINGS: [&str; 6] = [
    "model",
    "dimensions",
    "max tokens",
    "pooling",
    "size",
    "where",
];

/// Wide enough for the path of a model in a home directory.
const MAX_CELL_WIDTH: usize = 100;

/// What is printed for a property that is unknown until the model is downloaded.
const UNKNOWN: &str = "?";

/// List the embedding models that jobs can name, and show which of them are on this machine
///
/// Lists the models that are known by name and those found in the data folder. For a local model the properties are
/// read from its own files. Below the table is why a model is unusable, and what is assumed where its files leave
/// something open. Any model in the layout of sentence-transformers with an ONNX export works, listed or not. The
/// daemon downloads nothing: put a model into the data folder before a job names it.
#[derive(Args)]
pub struct ShowModels {
    #[command(flatten)]
    engine: EngineArguments,
}

/// Prints a table of the models.
///
/// # Errors
/// If there is no data folder, or the table cannot be written.
pub fn run(arguments: &ShowModels) -> anyhow::Result<()> {
    let catalog = arguments.engine.catalog()?;
    let entries = catalog.entries();
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    table::print(&HEADINGS, &rows, MAX_CELL_WIDTH)?;
    let folder = catalog.folder().display();
    output::lines(&[String::new(), format!("Models are searched in {folder}.")])?;
    for entry in &entries {
        for note in entry.problem.iter().chain(&entry.assumption) {
            output::line(format_args!("{}: {note}", entry.name))?;
        }
    }
    Ok(())
}

fn row(entry: &ModelEntry) -> Vec<String> {
    fn known<T: ToString>(value: Option<&T>) -> String {
        value.map_or_else(|| UNKNOWN.into(), ToString::to_string)
    }
    vec![
        entry.name.to_string(),
        known(entry.dimensions.as_ref()),
        known(entry.max_tokens.as_ref()),
        pooling(entry),
        entry.size.map_or_else(|| UNKNOWN.into(), megabytes),
        location(entry),
    ]
}

/// How the model pools, and whether that is stated or assumed.
fn pooling(entry: &ModelEntry) -> String {
    match &entry.pooling {
        None => UNKNOWN.into(),
        Some(pooling) if entry.assumption.is_some() => format!("{pooling} (assumed)"),
        Some(pooling) => pooling.to_string(),
    }
}

fn location(entry: &ModelEntry) -> String {
    match (&entry.location, &entry.problem) {
        (Location::Local(path), None) => path.display().to_string(),
        (Location::Local(path), Some(problem)) => {
            format!("{} (unusable: {problem})", path.display())
        }
        (Location::NotDownloaded, _) => "not downloaded".into(),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
