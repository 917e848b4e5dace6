//! The texts of the demo: one JSON object a line, with `title` and `body`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub struct Article {
    pub title: String,
    pub body: String,
}

pub fn load(path: &Path) -> Result<Vec<Article>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let articles = text
        .lines()
        .enumerate()
        .map(|(line, json)| {
            serde_json::from_str(json)
                .with_context(|| format!("{} line {}: no article", path.display(), line + 1))
        })
        .collect::<Result<Vec<Article>>>()?;
    ensure!(
        articles.len() >= 100,
        "{} holds {} articles, at least 100 expected",
        path.display(),
        articles.len()
    );
    Ok(articles)
}
