//! The loader against sentence-transformers itself: small models of several architectures, with each way of pooling, each
//! module, prompts, and the options of a job. `scripts/reference_vectors.py` has made the models and the vectors.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lantern::embedding::{Engine, EngineOptions, Model, ModelCatalog, ModelOptions, TextRole};
use serde::Deserialize;
use testkit::paths::runtime;

/// The largest difference of a value that counts as rounding.
const TOLERANCE: f32 = 1e-5;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

/// Vectors of a model, with the files that make it one.
#[derive(Deserialize)]
struct Case {
    name: String,
    /// The folder with the graph.
    architecture: String,
    /// Further files by their paths, in Base64.
    files: std::collections::BTreeMap<String, String>,
    options: Option<serde_json::Value>,
    role: String,
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny")
}

fn cases() -> Vec<Case> {
    let json = fs::read(data().join("reference.json")).unwrap();
    serde_json::from_slice::<Reference>(&json).unwrap().cases
}

impl Case {
    fn model(&self) -> String {
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
    fn write_to(&self, models: &Path) {
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

    fn role(&self) -> TextRole {
        match self.role.as_str() {
            "query" => TextRole::Query,
            _ => TextRole::Document,
        }
    }

    async fn load(&self, engine: &Engine) -> Model {
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
    fn difference(&self, vectors: &[Vec<f32>]) -> f32 {
        assert_eq!(vectors.len(), self.vectors.len());
        let pairs = vectors.iter().zip(&self.vectors);
        let values = pairs.flat_map(|(vector, expected)| {
            assert_eq!(vector.len(), expected.len(), "{}", self.name);
            vector.iter().zip(expected).map(|(a, b)| (a - b).abs())
        });
        values.fold(0.0, f32::max)
    }
}

/// An engine with the models of these cases.
fn engine(cases: &[Case]) -> (tempfile::TempDir, Engine) {
    let models = tempfile::tempdir().unwrap();
    cases.iter().for_each(|case| case.write_to(models.path()));
    let options = EngineOptions {
        data_path: runtime(),
        // A known vector would be compared with itself.
        cache_bytes: Some(0),
        ..EngineOptions::default()
    };
    let engine = Engine::new(ModelCatalog::new(models.path().into()), options);
    (models, engine)
}

#[tokio::test]
async fn vectors_are_those_of_sentence_transformers_alone_and_in_a_batch() {
    let cases = cases();
    let (_models, engine) = engine(&cases);
    let mut wrong = Vec::new();
    for case in &cases {
        let model = case.load(&engine).await;
        let embed = |texts: Vec<String>| engine.embed(&model, case.role(), texts);
        let together = embed(case.texts.clone()).await.unwrap();
        let mut alone = Vec::new();
        for text in &case.texts {
            alone.push(embed(vec![text.clone()]).await.unwrap().remove(0));
        }
        for (how, vectors) in [("together", together), ("alone", alone)] {
            let difference = case.difference(&vectors);
            if difference > TOLERANCE {
                wrong.push(format!("{}, {how}: {difference:e}", case.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// The comparison proves nothing unless each of these decides vectors.
#[tokio::test]
async fn options_and_modules_show_in_the_reference_vectors() {
    let cases = cases();
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    for (one, other) in [
        ("pooling mean", "pooling cls"),
        ("pooling mean", "pooling weightedmean"),
        ("pooling max", "pooling lasttoken"),
        ("qwen3 lasttoken", "qwen3 mean"),
        ("pooling mean", "narrower window"),
        ("pooling mean", "wider window"),
        ("dense Tanh", "dense Identity"),
        ("query prompt of bert mean", "document prompt of bert mean"),
        ("query prompt of bert mean", "prompt not pooled, bert mean"),
        ("few dimensions, normalized", "few dimensions, plain"),
    ] {
        let difference = find(one).difference(&find(other).vectors);
        assert!(difference > 1e-3, "{one} and {other}: {difference:e}");
    }
}
