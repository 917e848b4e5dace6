//! `lantern-cli show-models`

use clap::Args;

use super::EngineArguments;
use super::table;
use crate::embedding::Location;

/// List the embedding models that jobs can name, and which of them are on this machine
#[derive(Args)]
pub struct ShowModels {
    #[command(flatten)]
    engine: EngineArguments,
}

pub fn run(arguments: &ShowModels) -> anyhow::Result<()> {
    let catalogue = arguments.engine.catalogue();
    let number =
        |value: Option<usize>| value.map_or_else(|| "?".to_string(), |value| value.to_string());
    let rows: Vec<Vec<String>> = catalogue
        .entries()
        .into_iter()
        .map(|entry| {
            let place = match (&entry.location, entry.problem) {
                (Location::Local(path), None) => path.display().to_string(),
                (Location::Local(path), Some(problem)) => {
                    format!("{} (unusable: {problem})", path.display())
                }
                (Location::NotDownloaded, _) => "not downloaded".into(),
            };
            vec![
                entry.name.to_string(),
                number(entry.dimensions),
                number(entry.max_tokens),
                entry
                    .pooling
                    .map_or_else(|| "?".into(), |pooling| pooling.to_string()),
                entry.size.map_or_else(|| "?".into(), megabytes),
                place,
            ]
        })
        .collect();
    table::print(
        &[
            "model",
            "dimensions",
            "max tokens",
            "pooling",
            "size",
            "where",
        ],
        &rows,
        100,
    );
    println!(
        "\nModels are looked for in {}.",
        catalogue.folder().display()
    );
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
