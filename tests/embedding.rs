//! The embedding engine with the real model: vectors, batching, fairness, errors and shutdown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern::embedding::{
    Embedded, EmbeddingError, Engine, EngineOptions, Location, Model, ModelCatalog, ModelName,
    ModelOptions, Priority, TextRole,
};
use serde::Deserialize;
use testkit::tiny_model::{Element, Export, TinyModel};

/// `tests/data/all-MiniLM-L6-v2.json`: vectors that a float64 forward pass over the published weights computed.
#[derive(Deserialize)]
struct Reference {
    texts: Vec<ReferenceText>,
}

#[derive(Deserialize)]
struct ReferenceText {
    text: String,
    embedding: Vec<f64>,
}

fn reference() -> Vec<ReferenceText> {
    let path = root().join("tests/data/all-MiniLM-L6-v2.json");
    let bytes = std::fs::read(path).unwrap();
    serde_json::from_slice::<Reference>(&bytes).unwrap().texts
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn runtime() -> PathBuf {
    let runtime = root().join(".runtime");
    assert!(
        runtime.join("models").join(ModelName::DEFAULT).is_dir(),
        "run `make setup` first"
    );
    runtime
}

fn engine_on(models: &Path) -> Engine {
    let options = EngineOptions {
        data_path: runtime(),
        ..EngineOptions::default()
    };
    Engine::new(ModelCatalog::new(models.into()), options)
}

async fn default_model() -> (Engine, Model) {
    let engine = engine_on(&runtime().join("models"));
    let model = engine
        .model(&ModelName::DEFAULT.parse().unwrap())
        .await
        .unwrap();
    (engine, model)
}

async fn embed(engine: &Engine, model: &Model, texts: &[&str]) -> Vec<Vec<f32>> {
    let texts = texts.iter().map(ToString::to_string).collect();
    engine
        .embed(model, TextRole::Document, texts)
        .await
        .unwrap()
}

/// The largest difference in any dimension, and the cosine of the angle.
fn compare(vector: &[f32], exact: &[f64]) -> (f64, f64) {
    assert_eq!(vector.len(), exact.len());
    let pairs = || {
        vector
            .iter()
            .map(|value| f64::from(*value))
            .zip(exact.iter().copied())
    };
    let difference = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    let lengths: f64 =
        pairs().map(|(a, _)| a * a).sum::<f64>() * pairs().map(|(_, b)| b * b).sum::<f64>();
    (difference, dot / lengths.sqrt())
}

fn assert_exact(vector: &[f32], exact: &ReferenceText) {
    let (difference, cosine) = compare(vector, &exact.embedding);
    assert!(
        difference <= 1e-5 && cosine >= 0.99999,
        "{:?}: difference {difference:e}, cosine {cosine}",
        exact.text.chars().take(40).collect::<String>()
    );
}

#[tokio::test]
async fn vectors_equal_the_reference_alone_and_in_any_batch() {
    let (engine, model) = default_model().await;
    let exact = reference();
    for text in &exact {
        assert_exact(&embed(&engine, &model, &[&text.text]).await[0], text);
    }
    let all: Vec<_> = exact.iter().map(|text| text.text.as_str()).collect();
    for (vector, text) in embed(&engine, &model, &all).await.iter().zip(&exact) {
        assert_exact(vector, text);
    }

    // Each reference text many times over, so that every batch is full and padded.
    let (submitter, mut completions) = engine.queue(&model, 1000, Arc::default());
    for id in 0..1000 {
        submitter.submit(
            Priority::Backfill,
            id,
            exact[id as usize * 7 % exact.len()].text.clone(),
        );
    }
    for _ in 0..1000 {
        let Embedded { id, vector, .. } = completions.next().await.unwrap();
        assert_exact(&vector.unwrap(), &exact[id as usize * 7 % exact.len()]);
    }
}

#[tokio::test]
async fn a_loaded_model_is_described_by_its_files() {
    let (engine, model) = default_model().await;
    assert_eq!(model.name(), ModelName::DEFAULT);
    assert_eq!((model.dimensions(), model.max_tokens()), (384, Some(256)));
    assert_eq!(model.pooling().unwrap().to_string(), "mean");
    assert_eq!(model.identity().len(), 16);

    let again = engine
        .model(&"all-MiniLM-L6-v2".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(again.identity(), model.identity());
    let entries = engine.catalog().entries();
    let entry = entries
        .iter()
        .find(|entry| entry.name.as_str() == model.name())
        .unwrap();
    assert!(matches!(entry.location, Location::Local(_)) && entry.problem.is_none());
    assert!(entry.size.unwrap() > 80_000_000);
}

/// A copy of the default model with some of its files changed or added.
fn changed_model(changes: &[(&str, &[u8])]) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    let original = runtime().join("models").join(ModelName::DEFAULT);
    let copy = models.path().join(ModelName::DEFAULT);
    std::fs::create_dir_all(copy.join("1_Pooling")).unwrap();
    for name in [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
    ] {
        std::fs::copy(original.join(name), copy.join(name)).unwrap();
    }
    for (file, content) in changes {
        std::fs::create_dir_all(copy.join(file).parent().unwrap()).unwrap();
        std::fs::write(copy.join(file), content).unwrap();
    }
    std::fs::hard_link(original.join("model.onnx"), copy.join("model.onnx"))
        .or_else(|_| std::fs::copy(original.join("model.onnx"), copy.join("model.onnx")).map(drop))
        .unwrap();
    models
}

#[tokio::test]
async fn the_reference_vectors_reveal_a_wrong_window_pooling_or_normalization() {
    let (_engine, right) = default_model().await;
    let bare = r#"[{"path":"","type":"Transformer"},{"path":"1_Pooling","type":"Pooling"}]"#;
    // Each of these mistakes must be visible, or the comparison above proves nothing.
    let mistakes = [
        ("sentence_bert_config.json", r#"{"max_seq_length":128}"#),
        ("sentence_bert_config.json", r#"{"max_seq_length":512}"#),
        (
            "1_Pooling/config.json",
            r#"{"word_embedding_dimension":384,"pooling_mode_cls_token":true}"#,
        ),
        ("modules.json", bare),
    ];
    for (file, content) in mistakes {
        let models = changed_model(&[(file, content.as_bytes())]);
        let engine = engine_on(models.path());
        let wrong = engine
            .model(&ModelName::DEFAULT.parse().unwrap())
            .await
            .unwrap();
        assert_ne!(wrong.identity(), right.identity(), "{file}: {content}");
        let mut worst: f64 = 0.0;
        for text in reference() {
            let vector = embed(&engine, &wrong, &[&text.text]).await.remove(0);
            worst = worst.max(compare(&vector, &text.embedding).0);
        }
        assert!(
            worst > 1e-3,
            "{file}: {content} changed nothing ({worst:e})"
        );
    }
}

/// What the work returns, and how long it took.
async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    (work.await, started.elapsed())
}

#[tokio::test]
async fn text_beyond_the_window_changes_neither_the_vector_nor_much_of_the_time() {
    let (engine, model) = default_model().await;
    let heads = [
        "the write-ahead log keeps every change until each slot has confirmed it, ".repeat(60),
        "論理レプリケーションは変更を順番に届ける。".repeat(60),
        "eine Zeile mit Umlauten äöü und Wörtern wie Donaudampfschifffahrtsgesellschaft; "
            .repeat(60),
        format!("{} ", "x".repeat(99)).repeat(60),
        "a,b;c:d!e?f".repeat(120),
    ];
    for head in &heads {
        // All of it took 76 times as long as the head. On a busy machine one try says nothing, and each needs texts whose
        // vectors are not known yet.
        let mut tries = Vec::new();
        let vectors = loop {
            let head = format!("{} {head}", tries.len());
            let long = head.clone() + &head.repeat(10_000_000 / head.len());
            let (of_head, short) = timed(embed(&engine, &model, &[&head])).await;
            let (of_long, whole) = timed(embed(&engine, &model, &[&long])).await;
            if whole < 5 * short {
                break [of_head, of_long].concat();
            }
            tries.push((short, whole));
            assert!(tries.len() < 5, "{:?} took {tries:?}", &head[..12]);
        };
        let exact: Vec<f64> = vectors[0].iter().map(|value| f64::from(*value)).collect();
        let (difference, _) = compare(&vectors[1], &exact);
        assert!(
            difference < 1e-6,
            "{:?}: {difference:e}",
            head.chars().take(20).collect::<String>()
        );
    }
}

#[tokio::test]
async fn a_live_text_overtakes_the_backfill() {
    let (engine, model) = default_model().await;
    let (backfill, mut backfilled) = engine.queue(&model, 5000, Arc::default());
    (0..5000).for_each(|id| {
        backfill.submit(
            Priority::Backfill,
            id,
            format!("row number {id} of a large table"),
        );
    });
    backfilled.next().await.unwrap();
    let mut done = 1;
    let live = engine.embed(
        &model,
        TextRole::Document,
        vec!["a row that changed just now".into()],
    );
    live.await.unwrap();
    while backfilled.try_next().is_some() {
        done += 1;
    }
    assert!(
        done < 2500,
        "{done} of 5000 rows of the backfill were embedded first"
    );
}

#[tokio::test]
async fn dropping_a_submitter_ends_its_own_completions_only() {
    let (engine, model) = default_model().await;
    let (gone, mut gone_completions) = engine.queue(&model, 2000, Arc::default());
    let (stays, mut completions) = engine.queue(&model, 10, Arc::default());
    (0..2000).for_each(|id| {
        gone.submit(
            Priority::Backfill,
            id,
            format!("text {id} of a job that is canceled"),
        );
    });
    (0..10).for_each(|id| {
        stays.submit(
            Priority::Backfill,
            id,
            format!("text {id} of a job that continues"),
        );
    });
    drop(gone);

    let mut received = Vec::new();
    while completions.next_many(&mut received, 100).await > 0 {
        if received.len() == 10 {
            break;
        }
    }
    let mut ids: Vec<_> = received.iter().map(|embedded| embedded.id).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..10));
    assert!(received.iter().all(|embedded| embedded.vector.is_ok()));
    let mut left = 0;
    while gone_completions.next().await.is_some() {
        left += 1;
    }
    assert!(left < 2000);
}

#[tokio::test]
async fn after_a_shutdown_every_text_has_come_back() {
    let (engine, model) = default_model().await;
    let (submitter, mut completions) = engine.queue(&model, 1001, Arc::default());
    (0..1000).for_each(|id| submitter.submit(Priority::Backfill, id, format!("text number {id}")));
    tokio::task::spawn_blocking(move || engine.shutdown())
        .await
        .unwrap();
    submitter.submit(Priority::Live, 1000, "too late");
    let mut rejected = 0;
    for _ in 0..1001 {
        match completions.next().await.unwrap().vector {
            Ok(vector) => assert_eq!(vector.len(), 384),
            Err(EmbeddingError::ShutDown) => rejected += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(rejected > 0);
}

#[tokio::test]
async fn a_missing_model_is_an_error_with_the_remedy_and_the_engine_continues() {
    let (engine, model) = default_model().await;
    let error = engine
        .model(&"microsoft/all-MiniLM-L12-v2".parse().unwrap())
        .await
        .unwrap_err();
    assert!(!error.is_transient());
    let sentence = error.to_string();
    assert!(
        sentence.contains("sentence-transformers/all-MiniLM-L12-v2")
            && sentence.contains("download"),
        "{sentence}"
    );
    assert_eq!(embed(&engine, &model, &["still here"]).await[0].len(), 384);
}

#[tokio::test]
async fn a_text_that_fails_does_not_fail_the_others_of_its_batch() {
    let tokenizer = runtime()
        .join("models")
        .join(ModelName::DEFAULT)
        .join("tokenizer.json");
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(tokenizer).unwrap()).unwrap();
    // A token id outside the embedding table makes the graph fail on every batch that has this word.
    tokenizer["model"]["vocab"]["zebra"] = 99_999.into();
    let models = changed_model(&[("tokenizer.json", tokenizer.to_string().as_bytes())]);
    let engine = engine_on(models.path());
    let model = engine
        .model(&ModelName::DEFAULT.parse().unwrap())
        .await
        .unwrap();

    let (submitter, mut completions) = engine.queue(&model, 40, Arc::default());
    for id in 0..40 {
        let animal = if id == 17 { "zebra" } else { "horse" };
        submitter.submit(
            Priority::Backfill,
            id,
            format!("the {animal} with the number {id}"),
        );
    }
    for _ in 0..40 {
        let Embedded { id, vector, .. } = completions.next().await.unwrap();
        match vector {
            Ok(vector) => assert!(id != 17 && vector.len() == 384),
            Err(error) => assert!(
                id == 17 && matches!(error, EmbeddingError::Inference { .. }),
                "{id}: {error}"
            ),
        }
    }
}

#[tokio::test]
async fn a_dense_layer_is_applied_and_one_with_infinite_results_is_rejected() {
    let modules =
        br#"[{"path":"","type":"models.Transformer"},{"path":"1_Pooling","type":"models.Pooling"},
        {"path":"2_Dense","type":"models.Dense"}]"#;
    let config = br#"{"in_features":384,"out_features":1,"activation_function":"torch.nn.modules.linear.Identity"}"#;
    let with_weight = |weight: f32| {
        let header =
            br#"{"linear.weight":{"dtype":"F32","shape":[1,384],"data_offsets":[0,1536]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        let weights: Vec<u8> = (0..384).flat_map(|_| weight.to_le_bytes()).collect();
        let tensors = [&length[..], &header[..], &weights[..]].concat();
        changed_model(&[
            ("modules.json", modules),
            ("2_Dense/config.json", config),
            ("2_Dense/model.safetensors", &tensors),
        ])
    };
    let name: ModelName = ModelName::DEFAULT.parse().unwrap();
    let models = with_weight(0.5);
    let engine = engine_on(models.path());
    let model = engine.model(&name).await.unwrap();
    assert_eq!(model.dimensions(), 1);
    assert_eq!(embed(&engine, &model, &["one number"]).await[0].len(), 1);

    let models = with_weight(f32::INFINITY);
    let error = engine_on(models.path()).model(&name).await.unwrap_err();
    assert!(matches!(error, EmbeddingError::NotFinite { .. }), "{error}");
}

#[tokio::test]
async fn concurrent_callers_share_one_load() {
    let engine = engine_on(&runtime().join("models"));
    let name: ModelName = ModelName::DEFAULT.parse().unwrap();
    let loads = (0..8).map(|_| {
        let (engine, name) = (engine.clone(), name.clone());
        tokio::spawn(async move { engine.model(&name).await.unwrap() })
    });
    let models = futures_util::future::join_all(loads.collect::<Vec<_>>()).await;
    let models: Vec<Model> = models.into_iter().map(Result::unwrap).collect();
    assert!(
        models
            .windows(2)
            .all(|pair| pair[0].shares_weights_with(&pair[1]))
    );
}

#[tokio::test]
async fn unusual_texts_have_vectors_too() {
    let (engine, model) = default_model().await;
    let long_word = "x".repeat(100_000);
    let texts = [
        "",
        " ",
        "\u{0}",
        "\u{202e}\u{200b}",
        "🦀🦀",
        "[CLS] [PAD] [SEP]",
        &long_word,
    ];
    let together = embed(&engine, &model, &texts).await;
    for (text, vector) in texts.iter().zip(&together) {
        let alone: Vec<f64> = embed(&engine, &model, &[text]).await[0]
            .iter()
            .map(|value| f64::from(*value))
            .collect();
        assert!(compare(vector, &alone).0 < 1e-6, "{text:?}");
    }
}

/// A folder of models with a tiny one, and what `change` does to its folder.
fn tiny_model(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    TinyModel::One.write_to(models.path()).unwrap();
    change(&models.path().join(TinyModel::One.name()));
    models
}

async fn load_tiny(models: &Path) -> Result<(Engine, Model), EmbeddingError> {
    let engine = engine_on(models);
    let name = TinyModel::One.name().parse().unwrap();
    let model = engine.model(&name).await?;
    Ok((engine, model))
}

async fn load_error(models: &Path) -> String {
    let error = load_tiny(models).await.err();
    error.expect("the model is refused").to_string()
}

fn write(folder: &Path, file: &str, content: impl AsRef<[u8]>) {
    std::fs::write(folder.join(file), content).unwrap();
}

fn assert_near(left: &[f32], right: &[f32]) {
    assert_eq!(left.len(), right.len());
    let differences = left.iter().zip(right).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f32::max);
    assert!(worst < 1e-5, "{left:?} is not {right:?}");
}

/// nnsight 608, transformers 3091, mteb 1043: texts of blanks, for tokenizers without special tokens.
#[tokio::test]
async fn a_text_without_a_token_has_no_vector_and_stops_no_other() {
    for mode in ["mean", "cls", "lasttoken", "max", "weightedmean"] {
        let models = tiny_model(|folder| {
            let config = format!(r#"{{"word_embedding_dimension":8,"pooling_mode":"{mode}"}}"#);
            write(folder, "1_Pooling/config.json", config);
        });
        let (engine, model) = load_tiny(models.path()).await.unwrap();
        let texts = ["w1", "   ", "\t\n", "\u{a0}", "w2 w3"].map(str::to_owned);
        let embedded = engine
            .embed_each(&model, TextRole::Document, texts.to_vec())
            .await
            .unwrap();
        for (text, embedded) in texts.iter().zip(embedded) {
            if text.trim().is_empty() {
                let error = embedded.vector.unwrap_err();
                assert!(
                    matches!(error, EmbeddingError::NoTokens { .. }),
                    "{mode}: {error}"
                );
                assert!(error.concerns_one_text() && error.to_string().contains("NULL"));
            } else {
                let length: f32 = embedded
                    .vector
                    .unwrap()
                    .iter()
                    .map(|value| value * value)
                    .sum();
                assert!(
                    (length - 1.0).abs() < 1e-5,
                    "{mode}: {text:?} has length {length}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_vector_of_zeros_is_an_error() {
    let models = tiny_model(|folder| {
        TinyModel::One
            .write_graph_to(folder, Export::WeightsIn("weights.bin"))
            .unwrap();
        let length = std::fs::metadata(folder.join("weights.bin")).unwrap().len();
        write(folder, "weights.bin", vec![0; length as usize]);
    });
    let Err(error) = load_tiny(models.path()).await else {
        panic!("a model that computes zeros was loaded");
    };
    assert!(
        matches!(error, EmbeddingError::ZeroVector { .. }),
        "{error}"
    );
}

/// Number of words in the window of the tiny model.
const WINDOW: usize = 96;

#[tokio::test]
async fn a_text_is_cut_on_the_side_that_the_files_state() {
    let words: Vec<String> = (1..=3 * WINDOW).map(|n| format!("w{n}")).collect();
    let (text, beginning) = (words.join(" "), words[..WINDOW].join(" "));
    let end = words[2 * WINDOW..].join(" ");
    let tokenizer = |folder: &Path| {
        let path = folder.join("tokenizer.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let truncation = r#""truncation":{"direction":"Left","max_length":8,"strategy":"LongestFirst","stride":0}"#;
        let text = text.replace(r#""truncation":null"#, truncation);
        std::fs::write(path, text).unwrap();
    };
    let stated = |side: &'static str| {
        move |folder: &Path| {
            let config = format!(r#"{{"truncation_side":"{side}"}}"#);
            write(folder, "tokenizer_config.json", config);
        }
    };
    let mut identities = Vec::new();
    for (models, kept) in [
        (tiny_model(|_| ()), &beginning),
        (tiny_model(stated("right")), &beginning),
        (tiny_model(stated("left")), &end),
        (tiny_model(tokenizer), &end),
        // As in transformers, `tokenizer_config.json` goes first.
        (
            tiny_model(|folder| {
                tokenizer(folder);
                stated("right")(folder);
            }),
            &beginning,
        ),
    ] {
        let (engine, model) = load_tiny(models.path()).await.unwrap();
        let texts = vec![text.clone(), kept.clone()];
        let embedded = engine.embed_each(&model, TextRole::Document, texts).await;
        let embedded = embedded.unwrap();
        assert_eq!(
            (embedded[0].is_truncated, embedded[1].is_truncated),
            (true, false)
        );
        let vector = embedded[0].vector.clone().unwrap();
        assert_near(&vector, &TinyModel::One.vector(kept));
        identities.push(model.identity().to_owned());
    }
    // Vectors that were cut on the other side before must not count as current.
    assert_eq!(identities[0], identities[1]);
    assert_ne!(identities[0], identities[2]);
}

/// onnxruntime 27353: weights outside of the graph.
#[tokio::test]
async fn weights_in_a_file_of_any_name_are_part_of_the_model() {
    for file in ["weights.bin", "model.onnx_data"] {
        let external = |folder: &Path| {
            let export = Export::WeightsIn(file);
            TinyModel::One.write_graph_to(folder, export).unwrap();
        };
        let one = tiny_model(external);
        let (engine, model) = load_tiny(one.path()).await.unwrap();
        let vector = embed(&engine, &model, &["w1 w2"]).await.remove(0);
        assert_near(&vector, &TinyModel::One.vector("w1 w2"));

        let swapped = tiny_model(|folder| {
            external(folder);
            let others = TinyModel::Two;
            others
                .write_graph_to(folder, Export::WeightsIn(file))
                .unwrap();
        });
        let (_engine, other) = load_tiny(swapped.path()).await.unwrap();
        assert_ne!(other.identity(), model.identity(), "{file}");

        let missing = tiny_model(|folder| {
            external(folder);
            std::fs::remove_file(folder.join(file)).unwrap();
        });
        let error = load_error(missing.path()).await;
        assert!(error.contains(file) && error.contains("missing"), "{error}");

        let short = tiny_model(|folder| {
            external(folder);
            write(folder, file, [0; 100]);
        });
        load_error(short.path()).await;
    }
}

/// text-embeddings-inference 667, 714: exports of a fixed size.
#[tokio::test]
async fn graphs_of_a_fixed_size_embed_any_number_of_texts() {
    let exports = [
        Export::Ordinary,
        Export::OfSize(Some(1), None),
        Export::OfSize(Some(3), None),
        Export::OfSize(None, Some(16)),
        Export::OfSize(Some(2), Some(16)),
        Export::OneTextInside,
    ];
    let texts: Vec<String> = (1..40)
        .map(|n| {
            (1..=n % 9 + 1)
                .map(|word| format!("w{}", word * n))
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let expected: Vec<Vec<f32>> = texts
        .iter()
        .map(|text| TinyModel::One.vector(text))
        .collect();
    for export in exports {
        let models = tiny_model(|folder| TinyModel::One.write_graph_to(folder, export).unwrap());
        let (engine, model) = load_tiny(models.path()).await.unwrap();
        let texts = texts.clone();
        let vectors = engine
            .embed(&model, TextRole::Document, texts)
            .await
            .unwrap();
        for (vector, expected) in vectors.iter().zip(&expected) {
            assert_near(vector, expected);
        }
        let window = match export {
            Export::OfSize(_, Some(width)) => width as usize,
            _ => WINDOW,
        };
        assert_eq!(model.max_tokens(), Some(window), "{export:?}");
    }
}

async fn load_export(export: Export) -> Result<(Engine, Model), EmbeddingError> {
    let models = tiny_model(|folder| TinyModel::One.write_graph_to(folder, export).unwrap());
    load_tiny(models.path()).await
}

#[tokio::test]
async fn graphs_of_other_types_and_names_give_the_same_vectors() {
    // Three decimal digits of half precision, two of bfloat16.
    for (export, tolerance) in [
        (Export::NarrowInputs, 1e-6),
        (Export::Output("token_embeddings", Element::Float16), 2e-3),
        (Export::Output("last_hidden_state", Element::Bfloat16), 2e-2),
        (Export::Output("a_name_of_its_own", Element::Float), 1e-6),
        (Export::MeanBeside("pooler_output"), 1e-6),
        (Export::MeanBeside("dense"), 1e-6),
        (Export::MeanBeside("sentence_embedding"), 1e-6),
        (Export::MeanBeside("text_embeds"), 1e-6),
    ] {
        let (engine, model) = load_export(export).await.unwrap();
        for text in ["w1", "w2 w3 w4"] {
            let vector = embed(&engine, &model, &[text]).await.remove(0);
            let expected = TinyModel::One.vector(text);
            let pairs = vector.iter().zip(&expected);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < tolerance, "{export:?}: {worst:e}");
        }
        let in_graph = ["sentence_embedding", "text_embeds"].map(Export::MeanBeside);
        let pooling = model.pooling().unwrap().to_string();
        assert_eq!(
            pooling == "in the graph",
            in_graph.contains(&export),
            "{export:?}"
        );
    }
}

/// `tests/reference_vectors.rs` has one that uses its past.
#[tokio::test]
async fn a_decoder_gets_an_empty_past_of_the_sizes_that_the_graph_or_the_files_state() {
    let with_config = |config: &'static str| {
        tiny_model(move |folder| {
            TinyModel::One
                .write_graph_to(folder, Export::WithPast)
                .unwrap();
            write(folder, "config.json", config);
        })
    };
    let known = with_config(r#"{"hidden_size": 8, "num_attention_heads": 2}"#);
    let (engine, model) = load_tiny(known.path()).await.unwrap();
    let vectors = embed(&engine, &model, &["w1", "w2 w3"]).await;
    assert_near(&vectors[1], &TinyModel::One.vector("w2 w3"));
    let unknown = with_config(r#"{"hidden_size": 8}"#);
    let error = load_error(unknown.path()).await;
    assert!(
        error.contains("past_key_values.0.key") && error.contains("fetch the model's config.json"),
        "{error}"
    );
}

#[tokio::test]
async fn scores_of_a_language_model_are_no_embedding() {
    let error = load_export(Export::Output("logits", Element::Float))
        .await
        .err();
    let error = error.expect("the model is refused").to_string();
    assert!(
        error.contains("logits") && error.contains("feature-extraction"),
        "{error}"
    );
}

#[tokio::test]
async fn a_graph_that_pools_can_be_told_to_pool_otherwise_if_it_shows_the_token_states() {
    let last = ModelOptions::from_json(r#"{"pooling": "lasttoken"}"#).unwrap();
    let models = tiny_model(|folder| {
        let export = Export::MeanBeside("sentence_embedding");
        TinyModel::One.write_graph_to(folder, export).unwrap();
    });
    let (engine, plain) = load_tiny(models.path()).await.unwrap();
    let model = engine
        .model_with(&plain.name().parse().unwrap(), &last)
        .await
        .unwrap();
    assert!(model.shares_weights_with(&plain) && model.identity() != plain.identity());
    let vector = embed(&engine, &model, &["w1 w2 w3"]).await.remove(0);
    assert_near(&vector, &TinyModel::One.vector("w3"));
    let vector = embed(&engine, &plain, &["w1 w2 w3"]).await.remove(0);
    assert_near(&vector, &TinyModel::One.vector("w1 w2 w3"));
}

#[tokio::test]
async fn options_that_change_nothing_keep_the_identity() {
    let models = tiny_model(|_| ());
    let (engine, plain) = load_tiny(models.path()).await.unwrap();
    for (json, is_same) in [
        (
            r#"{"pooling": "mean", "normalize": true, "max_tokens": 96}"#,
            true,
        ),
        (r#"{"prompt": {"query": "w1 "}}"#, true),
        (r#"{"dimensions": 8, "force": true}"#, true),
        (r#"{"prompt": "w1 "}"#, false),
        (r#"{"max_tokens": 95}"#, false),
        (r#"{"normalize": false}"#, false),
        (r#"{"dimensions": 7, "force": true}"#, false),
        (r#"{"long_text": "mean"}"#, false),
    ] {
        let options = ModelOptions::from_json(json).unwrap();
        let model = engine
            .model_with(&plain.name().parse().unwrap(), &options)
            .await
            .unwrap();
        assert_eq!(model.identity() == plain.identity(), is_same, "{json}");
    }
}

/// The cache of the hub: names that are links to files named by their checksums.
#[tokio::test]
async fn weights_behind_the_links_of_the_hubs_cache_are_part_of_the_model() {
    let models = tempfile::tempdir().unwrap();
    let plain = tiny_model(|folder| {
        let export = Export::WeightsIn("model.onnx_data");
        TinyModel::One.write_graph_to(folder, export).unwrap();
    });
    let (_engine, expected) = load_tiny(plain.path()).await.unwrap();
    let cache = models.path().join("models--chaos--one");
    let (blobs, snapshot) = (cache.join("blobs"), cache.join("snapshots/abc"));
    for folder in [&blobs, &snapshot.join("1_Pooling"), &cache.join("refs")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    write(&cache, "refs/main", "abc");
    let original = plain.path().join(TinyModel::One.name());
    for (number, file) in [
        "model.onnx",
        "model.onnx_data",
        "tokenizer.json",
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::copy(original.join(file), blobs.join(number.to_string())).unwrap();
        let up = if file.contains('/') {
            "../../../blobs"
        } else {
            "../../blobs"
        };
        std::os::unix::fs::symlink(format!("{up}/{number}"), snapshot.join(file)).unwrap();
    }
    let (engine, model) = load_tiny(models.path()).await.unwrap();
    assert_eq!(model.identity(), expected.identity());
    let vector = embed(&engine, &model, &["w1 w2"]).await.remove(0);
    assert_near(&vector, &TinyModel::One.vector("w1 w2"));

    // Other weights are another model.
    let others = tiny_model(|folder| {
        let export = Export::WeightsIn("model.onnx_data");
        TinyModel::Two.write_graph_to(folder, export).unwrap();
    });
    let weights = others
        .path()
        .join(TinyModel::One.name())
        .join("model.onnx_data");
    std::fs::copy(weights, blobs.join("1")).unwrap();
    let (_engine, other) = load_tiny(models.path()).await.unwrap();
    assert_ne!(other.identity(), model.identity());
}

#[tokio::test]
async fn a_damaged_graph_is_named_with_what_is_wrong() {
    let original = tiny_model(|_| ());
    let graph = original
        .path()
        .join(TinyModel::One.name())
        .join("model.onnx");
    let graph = std::fs::read(graph).unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec();
    for (content, words) in [
        (pointer, "git lfs pull"),
        (graph[..graph.len() / 2].to_vec(), "after 6"),
        (Vec::new(), "it is empty"),
        (b"<!DOCTYPE html>".to_vec(), "a web page"),
        (b"nothing of the kind".to_vec(), "not an ONNX graph"),
    ] {
        let models = tiny_model(|folder| write(folder, "model.onnx", &content));
        let error = load_error(models.path()).await;
        assert!(
            error.contains("model.onnx") && error.contains(words),
            "{words}: {error}"
        );
    }
}

/// dsh-mneme 284, DALM 92: exports for other programs leave `modules.json` out.
#[tokio::test]
async fn a_known_model_without_modules_pools_as_it_was_published() {
    let (engine, right) = default_model().await;
    let expected = embed(&engine, &right, &["hello"]).await.remove(0);
    let models = changed_model(&[]);
    let folder = models.path().join(ModelName::DEFAULT);
    for file in ["modules.json", "1_Pooling/config.json"] {
        std::fs::remove_file(folder.join(file)).unwrap();
    }
    let engine = engine_on(models.path());
    let name: ModelName = ModelName::DEFAULT.parse().unwrap();
    let entries = engine.catalog().entries();
    let entry = entries.iter().find(|entry| entry.name == name).unwrap();
    let said = entry.assumption.as_deref().unwrap_or_default();
    assert!(
        said.contains("mean pooling with normalization is assumed"),
        "{said}"
    );
    let model = engine.model(&name).await.unwrap();
    assert_near(&embed(&engine, &model, &["hello"]).await[0], &expected);
}
