//! Pooling inside of the graph on a device. The device `faulty:pooling` gives no token states, so its vectors were pooled
//! there.

use std::path::Path;

use lantern::embedding::{EmbeddingError, TextRole};
use testkit::reference::{Case, TOLERANCE, cases};
use testkit::tiny_model::{Element, Export, TinyModel};

use crate::engine_with;

/// These cases on this provider: what differs from sentence-transformers.
async fn differences(cases: &[Case], provider: &str) -> Vec<String> {
    let models = tempfile::tempdir().unwrap();
    cases.iter().for_each(|case| case.write_to(models.path()));
    let engine = engine_with(models.path(), &[provider]);
    let mut wrong = Vec::new();
    for case in cases {
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
    engine.shutdown();
    wrong
}

/// Whether the largest values count in it, or the graph pools.
fn holds_other(case: &Case) -> bool {
    let parts = ["max", "two poolings", "static", "clip"];
    parts.iter().any(|part| case.name.contains(part))
}

#[tokio::test]
async fn a_device_pools_in_every_way_that_is_a_weighted_sum() {
    let is_sum = |case: &Case| !holds_other(case);
    let cases: Vec<Case> = cases().into_iter().filter(is_sum).collect();
    assert!(cases.len() > 40, "{} cases", cases.len());
    assert_eq!(differences(&cases, "faulty:pooling").await, [""; 0]);
}

#[tokio::test]
async fn the_token_states_of_a_device_are_pooled_where_the_graph_cannot_do_it() {
    let cases: Vec<Case> = cases().into_iter().filter(holds_other).collect();
    assert!(cases.len() > 4, "{} cases", cases.len());
    assert_eq!(differences(&cases, "faulty:device").await, [""; 0]);
}

/// A model whose graph was exported so.
fn exported(export: Export) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    let tiny = TinyModel::One;
    tiny.write_to(models.path()).unwrap();
    let folder = models.path().join(tiny.name());
    tiny.write_graph_to(&folder, export).unwrap();
    models
}

async fn vectors_of(models: &Path, provider: &str) -> Result<Vec<Vec<f32>>, EmbeddingError> {
    let texts = ["w1 w2", "w3", "w4 w5 w6 w7 w8 w9", "w10 w11 w12", "w13 w14"];
    embed(models, provider, &texts).await
}

async fn embed(
    models: &Path,
    provider: &str,
    texts: &[&str],
) -> Result<Vec<Vec<f32>>, EmbeddingError> {
    let engine = engine_with(models, &[provider]);
    let name = TinyModel::One.name().parse().unwrap();
    let model = engine.model(&name).await?;
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    let vectors = engine.embed(&model, TextRole::Document, texts).await;
    engine.shutdown();
    vectors
}

fn largest_difference(exact: &[Vec<f32>], found: &[Vec<f32>]) -> f32 {
    let pairs = exact.iter().zip(found);
    let differences = pairs.flat_map(|(exact, found)| {
        assert_eq!(exact.len(), found.len());
        exact.iter().zip(found).map(|(a, b)| (a - b).abs())
    });
    differences.fold(0.0, f32::max)
}

#[tokio::test]
async fn a_device_pools_graphs_of_every_kind() {
    let exports = [
        Export::Ordinary,
        Export::OfSize(Some(3), Some(12)),
        Export::OfSize(None, Some(12)),
        Export::OfSize(Some(2), None),
        Export::OneTextInside,
        Export::WeightsIn("weights.bin"),
        Export::Output("last_hidden_state", Element::Float16),
        Export::Output("anything", Element::Bfloat16),
        Export::NarrowInputs,
        Export::MeanBeside("pooler_output"),
        Export::OfOperators(9),
        Export::OfOperators(11),
        Export::OfOperators(17),
        Export::OfOperators(19),
        Export::OfOperators(21),
    ];
    for export in exports {
        let models = exported(export);
        let exact = vectors_of(models.path(), "cpu").await.unwrap();
        let pooled = vectors_of(models.path(), "faulty:pooling").await;
        let pooled = pooled.unwrap_or_else(|error| panic!("{export:?}: {error}"));
        let largest = largest_difference(&exact, &pooled);
        assert!(largest <= TOLERANCE, "{export:?}: {largest:e}");
    }
}

#[tokio::test]
async fn a_device_concatenates_the_vectors_of_several_modes() {
    let models = exported(Export::Ordinary);
    let modes = r#"{"word_embedding_dimension":8,"pooling_mode_mean_tokens":true,"pooling_mode_lasttoken":true,
        "pooling_mode_cls_token":true}"#;
    let folder = models.path().join(TinyModel::One.name());
    std::fs::write(folder.join("1_Pooling/config.json"), modes).unwrap();
    let exact = vectors_of(models.path(), "cpu").await.unwrap();
    assert_eq!(exact[0].len(), 24);
    let pooled = vectors_of(models.path(), "faulty:pooling").await.unwrap();
    assert!(largest_difference(&exact, &pooled) <= TOLERANCE);
}

#[tokio::test]
async fn a_graph_that_pools_itself_keeps_its_vectors() {
    let models = exported(Export::MeanBeside("sentence_embedding"));
    // This mean counts padding.
    let texts = ["w1 w2", "w3 w4", "w5 w6"];
    let exact = embed(models.path(), "cpu", &texts).await.unwrap();
    let found = embed(models.path(), "faulty:device", &texts).await.unwrap();
    assert_eq!(found, exact);
}
