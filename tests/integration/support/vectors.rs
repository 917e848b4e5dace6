use std::collections::HashMap;
use std::process::Output;

use lantern::embedding::{Catalogue, Engine, EngineOptions, Model, TextRole};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::jobs::MODEL;
use super::observe::PATIENCE;
use super::server::runtime;
use super::wait::wait_until;

/// Runs `lantern-cli` with these arguments on the data path of the checkout, to its end.
pub async fn lantern_cli(arguments: &[&str]) -> Output {
    let (command, rest) = arguments.split_first().expect("a subcommand");
    Command::new(env!("CARGO_BIN_EXE_lantern-cli"))
        .args([command, "--data-path"])
        .arg(runtime())
        .args(rest)
        .kill_on_drop(true)
        .output()
        .await
        .expect("lantern-cli starts")
}

/// What `lantern-cli` prints.
///
/// # Panics
///
/// When it fails, with its message.
pub async fn printed(arguments: &[&str]) -> String {
    let output = lantern_cli(arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} failed: {errors}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

/// The vectors of texts, by one engine that all tests share: loading the model takes longer than most tests.
pub async fn embed(texts: Vec<String>) -> Vec<Vec<f32>> {
    static LOADED: OnceCell<(Engine, Model)> = OnceCell::const_new();
    let load = async || {
        let options = EngineOptions {
            data_path: runtime(),
            ..EngineOptions::default()
        };
        let engine = Engine::new(Catalogue::new(runtime().join("models")), options);
        let name = MODEL.parse().expect("a model name");
        let model = engine.model(&name).await.expect("the model loads");
        (engine, model)
    };
    let (engine, model) = LOADED.get_or_init(load).await;
    let vectors = engine.embed(model, TextRole::Document, texts).await;
    vectors.expect("the texts are embedded")
}

/// 1 where two vectors point the same way; 0 where they have not even the same number of dimensions.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return 0.0;
    }
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Waits until each row of `table` holds in `destination` the vector of what its `source` holds, and nothing where there is
/// no text. All three are SQL, so names are quoted by the caller.
pub async fn in_step(client: &Client, table: &str, source: &str, destination: &str) {
    let statement =
        format!("SELECT NULLIF({source}::text, ''), ({destination})::real[] FROM {table}");
    let mut known = HashMap::new();
    wait_until(
        &format!("{destination} of {table} holds the vectors of {source}"),
        PATIENCE,
        async || match client.query(&statement, &[]).await {
            Ok(rows) => {
                let rows = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                match difference(rows, &mut known).await {
                    None => Ok(()),
                    Some(difference) => Err(difference),
                }
            }
            // The daemon has yet to create the column.
            Err(error) => Err(format!("{error:?}")),
        },
    )
    .await;
}

/// The first row whose vector is not the one of its text.
async fn difference(
    rows: Vec<(Option<String>, Option<Vec<f32>>)>,
    known: &mut HashMap<String, Vec<f32>>,
) -> Option<String> {
    let texts = rows.iter().filter_map(|(text, _)| text.clone());
    let news: Vec<String> = texts.filter(|text| !known.contains_key(text)).collect();
    if !news.is_empty() {
        let vectors = embed(news.clone()).await;
        known.extend(news.into_iter().zip(vectors));
    }
    rows.into_iter().find_map(|row| match row {
        (None, None) => None,
        (None, Some(_)) => Some("a row without a text has a vector".to_owned()),
        (Some(text), None) => Some(format!("no vector for {:?}", beginning(&text))),
        (Some(text), Some(vector)) => {
            let cosine = cosine(&vector, &known[&text]);
            (cosine < 0.9999).then(|| format!("{:?}: cosine {cosine}", beginning(&text)))
        }
    })
}

fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}
