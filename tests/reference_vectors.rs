//! The loader against sentence-transformers itself: small models of several architectures, with each way of pooling, each
//! module, prompts, and the options of a job.

use lantern::embedding::{Engine, EngineOptions, ModelCatalog};
use testkit::paths::runtime;
use testkit::reference::{Case, TOLERANCE, cases};

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
