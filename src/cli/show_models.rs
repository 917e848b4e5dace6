//! `lantern-cli show-models`: lists the embedding models.

use clap::Args;
use serde::Serialize;

use super::engine_arguments::EngineArguments;
use super::output;
use super::table;
use crate::embedding::{Location, ModelEntry};

const HEADINGS: [&str; 9] = [
    "model",
    "dimensions",
    "max tokens",
    "pooling",
    "prompts",
    "license",
    "size",
    "revision",
    "where",
];

/// Wide enough for the path of a model in a home directory.
const MAX_CELL_WIDTH: usize = 100;

/// What is printed for a property that is unknown until the model is downloaded.
const UNKNOWN: &str = "?";

/// Digits of a commit that the table shows.
const SHOWN_COMMIT: usize = 12;

/// List the embedding models that jobs can name, and show which of them are on this machine
///
/// Lists the models that are known by name and those found in the data folder and in the user's cache of the hub. For a
/// local model the properties are read from its own files. Below the table is why a model is unusable, and what is assumed
/// where its files leave something open. Any model of the hub in the layout of sentence-transformers with an ONNX export
/// works, listed or not. `lantern-cli pull` downloads one, and so does the first use by a job.
#[derive(Args)]
pub struct ShowModels {
    /// Print JSON: an array with an object for each model. What is unknown is null
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    engine: EngineArguments,
}

/// Prints a table of the models.
///
/// # Errors
/// If there is no data folder, or the table cannot be written.
pub async fn run(arguments: &ShowModels) -> anyhow::Result<()> {
    let catalog = arguments.engine.catalog()?;
    let entries = catalog.entries();
    let engine = arguments.engine.engine_without_downloads()?;
    let usable = engine.check_provider().await.map(|()| engine.provider());
    if arguments.json {
        let provider = usable.ok().map(ToString::to_string);
        let entry = |entry| JsonEntry::new(entry, provider.clone());
        let entries: Vec<JsonEntry> = entries.iter().map(entry).collect();
        output::data(&(serde_json::to_string_pretty(&entries)? + "\n"))?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    table::print(&HEADINGS, &rows, MAX_CELL_WIDTH)?;
    let folders = catalog.folders();
    let folders: Vec<String> = folders
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let folders = folders.join(", then in ");
    output::lines(&[
        String::new(),
        format!("Models are searched in {folders}."),
        match usable {
            Ok(provider) => format!("Models run on the execution provider {provider}."),
            Err(error) => format!("Models cannot run: {error}"),
        },
    ])?;
    for entry in &entries {
        for note in entry.problem.iter().chain(&entry.assumption) {
            output::line(format_args!("{}: {note}", entry.name))?;
        }
    }
    Ok(())
}

/// An entry as programs read it.
#[derive(Serialize)]
struct JsonEntry<'a> {
    name: &'a str,
    aliases: &'a [String],
    source: Option<&'a str>,
    dimensions: Option<usize>,
    max_tokens: Option<usize>,
    pooling: Option<String>,
    query_prompt: Option<&'a str>,
    document_prompt: Option<&'a str>,
    license: Option<&'a str>,
    size: Option<u64>,
    path: Option<String>,
    /// What would run it.
    provider: Option<String>,
    revision: Option<&'a str>,
    problem: Option<&'a str>,
    assumption: Option<&'a str>,
}

impl<'a> JsonEntry<'a> {
    fn new(entry: &'a ModelEntry, provider: Option<String>) -> Self {
        Self {
            provider,
            name: entry.name.as_str(),
            aliases: &entry.aliases,
            source: entry.source,
            dimensions: entry.dimensions,
            max_tokens: entry.max_tokens,
            pooling: entry.pooling.as_ref().map(ToString::to_string),
            query_prompt: entry.query_prompt.as_deref(),
            document_prompt: entry.document_prompt.as_deref(),
            license: entry.license,
            size: entry.size,
            path: match &entry.location {
                Location::Local(path) => Some(path.display().to_string()),
                Location::NotDownloaded => None,
            },
            revision: entry.commit.as_deref(),
            problem: entry.problem.as_deref(),
            assumption: entry.assumption.as_deref(),
        }
    }
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
        prompts(entry).into(),
        known(entry.license.as_ref()),
        entry.size.map_or_else(|| UNKNOWN.into(), megabytes),
        revision(entry),
        location(entry),
    ]
}

/// For which texts the model has prompts.
fn prompts(entry: &ModelEntry) -> &'static str {
    let has = |prompt: &Option<String>| prompt.as_ref().map(|prompt| !prompt.is_empty());
    match (has(&entry.query_prompt), has(&entry.document_prompt)) {
        (None, _) | (_, None) => UNKNOWN,
        (Some(false), Some(false)) => "none",
        (Some(true), Some(false)) => "queries",
        (Some(false), Some(true)) => "documents",
        (Some(true), Some(true)) => "both",
    }
}

/// The beginning of the commit that the model is pinned to. A copy by hand has none.
fn revision(entry: &ModelEntry) -> String {
    let commit = entry.commit.as_deref().unwrap_or_default();
    commit.chars().take(SHOWN_COMMIT).collect()
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
        (Location::NotDownloaded, Some(_)) => "not supported".into(),
        (Location::NotDownloaded, None) => "not downloaded".into(),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
