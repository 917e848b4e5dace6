//! The vectors of sentence-transformers that the loader is compared with, on small models of several architectures.
//! `scripts/reference_vectors.py` has made models and vectors.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern::embedding::{Engine, Model, ModelOptions, TextRole};
use serde::Deserialize;

use crate::paths;

/// The largest difference of a value that counts as rounding.
pub const TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

/// Vectors of a model, with the files that make it one.
#[derive(Deserialize)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// The folder with the graph.
    architecture: String,
    /// Further files by their paths, in Base64.
    files: BTreeMap<String, String>,
    options: Option<serde_json::Value>,
    role: String,
    /// The texts.
    pub texts: Vec<String>,
    /// Their vectors.
    pub vectors: Vec<Vec<f32>>,
}

fn data() -> PathBuf {
    paths::checkout().join("tests/data/tiny")
}

/// All cases.
///
/// # Panics
///
/// Where their file cannot be read.
pub fn cases() -> Vec<Case> {
    let json = fs::read(data().join("reference.json")).unwrap();
    serde_json::from_slice::<Reference>(&json).unwrap().cases
}

impl Case {
    /// The name of the model.
    pub fn model(&self) -> String {
        let letters = self.name.chars();
        let plain = letters.map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        });
        format!("tiny/{}", plain.collect::<String>())
    }

    /// Puts the model together as sentence-transformers saves it.
    pub fn write_to(&self, models: &Path) {
        let folder = models.join(self.model());
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(data().join(&self.architecture)).unwrap() {
            let file = entry.unwrap().path();
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        for (path, content) in &self.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, BASE64_STANDARD.decode(content).unwrap()).unwrap();
        }
    }

    /// What the texts are for.
    pub fn role(&self) -> TextRole {
        match self.role.as_str() {
            "query" => TextRole::Query,
            _ => TextRole::Document,
        }
    }

    /// The model under the options of the case.
    ///
    /// # Panics
    ///
    /// Where it cannot be loaded.
    pub async fn load(&self, engine: &Engine) -> Model {
        let options = match &self.options {
            Some(options) => ModelOptions::from_json(&options.to_string()).unwrap(),
            None => ModelOptions::default(),
        };
        let model = engine
            .model_with(&self.model().parse().unwrap(), &options)
            .await;
        model.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The largest difference of these vectors to the reference.
    pub fn difference(&self, vectors: &[Vec<f32>]) -> f32 {
        assert_eq!(vectors.len(), self.vectors.len());
        let pairs = vectors.iter().zip(&self.vectors);
        let values = pairs.flat_map(|(vector, expected)| {
            assert_eq!(vector.len(), expected.len(), "{}", self.name);
            vector.iter().zip(expected).map(|(a, b)| (a - b).abs())
        });
        values.fold(0.0, f32::max)
    }
}
