//! Vectors: what they should be, and waiting until a table has them.

use std::collections::HashMap;

use lantern::embedding::{Engine, Model, TextRole};
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use crate::engine;
use crate::paths::runtime;
use crate::wait::{TIMEOUT, wait_until};

/// Vectors that point the same way but for rounding.
const SAME: f64 = 0.9999;

/// The vectors of texts by the default model. All tests of a process share one engine: loading the model takes longer
/// than most tests.
///
/// # Panics
///
/// Where the model cannot be loaded or a text cannot be embedded.
pub async fn embed(texts: Vec<String>) -> Vec<Vec<f32>> {
    static LOADED: OnceCell<(Engine, Model)> = OnceCell::const_new();
    let load = async || {
        let loaded = engine::load(&runtime()).await;
        loaded.expect("the model loads")
    };
    let (engine, model) = LOADED.get_or_init(load).await;
    let vectors = engine.embed(model, TextRole::Document, texts).await;
    vectors.expect("the texts are embedded")
}

/// The cosine of the angle between two vectors: 1 where they point the same way. 0 where they differ in length.
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

/// Waits until each row of `table` has in `destination` the vector of the text in `source`, and NULL where there is no
/// text. All three are SQL, so the caller quotes names.
pub async fn wait_for_vectors(client: &Client, table: &str, source: &str, destination: &str) {
    let statement =
        format!("SELECT NULLIF({source}::text, ''), ({destination})::real[] FROM {table}");
    let mut known = HashMap::new();
    wait_until(
        &format!("{destination} of {table} has the vectors of {source}"),
        TIMEOUT,
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
    let new: Vec<String> = texts.filter(|text| !known.contains_key(text)).collect();
    if !new.is_empty() {
        let vectors = embed(new.clone()).await;
        known.extend(new.into_iter().zip(vectors));
    }
    rows.into_iter().find_map(|row| match row {
        (None, None) => None,
        (None, Some(_)) => Some("a row without a text has a vector".to_owned()),
        (Some(text), None) => Some(format!("no vector for {:?}", beginning(&text))),
        (Some(text), Some(vector)) => {
            let cosine = cosine(&vector, &known[&text]);
            (cosine < SAME).then(|| format!("{:?}: cosine {cosine}", beginning(&text)))
        }
    })
}

fn beginning(text: &str) -> String {
    text.chars().take(40).collect()
}
