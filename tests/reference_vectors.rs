//! The loader against sentence-transformers itself: small models of several architectures, with each way of pooling, each
//! module, prompts, and the options of a job.

use lantern::embedding::{Engine, EngineOptions, ModelCatalog, ModelOptions, TextRole};
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
        ("tasks, documents", "tasks, queries"),
        ("tasks, documents", "tasks, documents of one task"),
        ("tasks, queries of one task", "tasks, queries of two"),
    ] {
        let difference = find(one).difference(&find(other).vectors);
        assert!(difference > 1e-3, "{one} and {other}: {difference:e}");
    }
}

/// The graph takes the number of one task for all texts of a batch, so a batch of queries and documents would give some of
/// them vectors of the other task.
#[tokio::test]
async fn queries_and_documents_that_wait_together_get_the_vectors_of_their_own_tasks() {
    let cases = cases();
    let (_models, engine) = engine(&cases);
    let find = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
    for (documents, queries) in [
        ("tasks, documents", "tasks, queries"),
        ("tasks, documents of two", "tasks, queries of two"),
        ("tasks, documents of one task", "tasks, queries of one task"),
        (
            "tasks for each text, document",
            "tasks for each text, query",
        ),
    ] {
        let (documents, queries) = (find(documents), find(queries));
        let model = documents.load(&engine).await;
        // Whatever the threads are at: some texts of each role wait while others are run.
        for _ in 0..20 {
            let embed = |case: &Case| engine.embed(&model, case.role(), case.texts.clone());
            let (of_documents, of_queries) = tokio::join!(embed(documents), embed(queries));
            for (case, vectors) in [(documents, of_documents), (queries, of_queries)] {
                let difference = case.difference(&vectors.unwrap());
                assert!(difference <= TOLERANCE, "{}: {difference:e}", case.name);
            }
        }
    }
}

/// Neither the vectors that wait nor those that are known tell two tasks by a prompt here.
#[tokio::test]
async fn a_text_has_a_vector_for_each_task_also_without_an_instruction() {
    let cases = cases();
    let (models, _) = engine(&cases);
    let options = EngineOptions {
        data_path: runtime(),
        ..EngineOptions::default()
    };
    let engine = Engine::new(ModelCatalog::new(models.path().into()), options);
    let options = r#"{"task": {"document": "text-matching", "query": "separation"}}"#;
    let options = ModelOptions::from_json(options).unwrap();
    let name = with_tasks(&cases).model().parse().unwrap();
    let model = engine.model_with(&name, &options).await.unwrap();
    for name in ["tasks, documents of one task", "tasks, queries of two"] {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        let vectors = engine.embed(&model, case.role(), case.texts.clone());
        let difference = case.difference(&vectors.await.unwrap());
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
    }
}

/// A case of the model with tasks.
fn with_tasks(cases: &[Case]) -> &Case {
    let found = cases.iter().find(|case| case.name == "tasks, documents");
    found.unwrap()
}

#[tokio::test]
async fn the_identity_of_a_model_tells_the_tasks_of_documents() {
    let cases = cases();
    let (_models, engine) = engine(&cases);
    let name = with_tasks(&cases).model().parse().unwrap();
    let identity = async |options: &str| {
        let options = ModelOptions::from_json(options).unwrap();
        let model = engine.model_with(&name, &options).await.unwrap();
        model.identity().to_owned()
    };
    let plain = identity("{}").await;
    for same in [
        r#"{"task": {"query": "separation"}}"#,
        r#"{"task": {"document": "retrieval.passage"}}"#,
        r#"{"task": {"document": 1}}"#,
    ] {
        assert_eq!(identity(same).await, plain, "{same}");
    }
    let matching = identity(r#"{"task": "text-matching"}"#).await;
    assert_ne!(matching, plain);
    // Of two tasks without an instruction.
    assert_ne!(matching, identity(r#"{"task": "separation"}"#).await);
}

/// As text-embeddings-inference takes it: by name.
#[tokio::test]
async fn the_name_of_a_task_stands_for_the_role_that_has_it() {
    let cases = cases();
    let (_models, engine) = engine(&cases);
    let model = with_tasks(&cases).load(&engine).await;
    let role = |name| model.role_of_prompt(name);
    assert_eq!(role("retrieval.query"), Some(TextRole::Query));
    assert_eq!(role("retrieval.passage"), Some(TextRole::Document));
    assert_eq!(role("document"), Some(TextRole::Document));
    assert_eq!(role("separation"), None);
}

#[tokio::test]
async fn a_graph_with_a_task_that_is_not_known_is_refused_until_the_job_says_its_number() {
    let cases = cases();
    let (models, engine) = engine(&cases);
    let case = with_tasks(&cases);
    let config = models.path().join(case.model()).join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("lora_adaptations");
    std::fs::write(&config, json.to_string()).unwrap();
    let name = case.model().parse().unwrap();
    let load = async |options: &str| {
        let options = ModelOptions::from_json(options).unwrap();
        let model = engine.model_with(&name, &options).await;
        model.map_err(|error| error.to_string())
    };
    for (options, words) in [
        (
            "{}",
            "set task in runtime_params to the number that a query has",
        ),
        (
            r#"{"task": {"query": 0}}"#,
            "the number that a document has",
        ),
        (r#"{"task": "separation"}"#, "write the number of the task"),
        // The graph has five.
        (
            r#"{"task": {"query": 9, "document": 1}}"#,
            "inference with model",
        ),
    ] {
        let said = load(options).await.unwrap_err();
        assert!(said.contains(words), "{options}: {said}");
    }
    let told = r#"{"task": {"query": 0, "document": 1}, "prompt": "passage: "}"#;
    let model = load(told).await.unwrap();
    let vectors = engine.embed(&model, TextRole::Document, case.texts.clone());
    let difference = case.difference(&vectors.await.unwrap());
    assert!(difference <= TOLERANCE, "{difference:e}");
}
